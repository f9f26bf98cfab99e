//! One run: from a request to its metrics.
//!
//! The model becomes a graph, the graph a program, the program is loaded on a device of the
//! simulated machine and run there once. All numbers of a report come from that one program.
//!
//! Who shares a device with whom: [`crate::locks`].

use std::sync::Arc;

use bench_core::compile::compile;
use bench_core::evaluate::{TIMING, metrics};
use ipu_sim::device::{
    AttachedDevice, Connection, Device, DeviceError, DeviceId, DeviceManager, Executable, Mode,
    Ports,
};
use ipu_sim::engine;
use ipu_sim::execute::FloatControl;
use ipu_sim::spec::MachineSpec;
use ipu_sim::weigh;
use popart_graph::passes::Watch;
use popart_graph::plan::PlanCache;

use crate::clock::{HostClock, Stopwatch};
use crate::config::options::ConnectionType;
use crate::inspect::Inspect;
use crate::metrics::{HostTimes, TimedMetrics};
use crate::request::RunRequest;
use crate::{Error, Result, locks};

/// No plans yet, for products on that machine.
#[must_use]
pub fn plans_for(machine: &MachineSpec) -> PlanCache {
    PlanCache::new(machine.tile.clone())
}

/// Attaches a device and runs one step there.
///
/// # Errors
///
/// As [`acquire`] and [`run`].
pub fn simulate(request: &RunRequest) -> Result<TimedMetrics> {
    let plans = plans_for(&request.machine.spec);
    run(request, acquire(request)?, &Inspect::default(), &plans)
}

/// Attaches the device that the request asks for: by its id, or else the first free one of the
/// smallest size that holds all replicas. On demand, this may take host time.
///
/// # Errors
///
/// [`Error::OutOfRange`] for the id of a device of another size; a machine without devices that
/// large; a device that others keep.
pub fn acquire(request: &RunRequest) -> Result<AttachedDevice> {
    let machine = request.machine.spec.clone();
    let wanted = &request.options.device;
    let n_ipus = request.options.config.ipus_requested();
    let locks = locks::choose(wanted, &machine.name);
    let ports = Ports {
        locks,
        clock: Arc::new(HostClock::start()),
        ..Ports::alone()
    };
    let manager = DeviceManager::new(machine, ports);
    let connection = match wanted.connection {
        // Without a device of its own, the program is compiled for one of the same size.
        ConnectionType::Always | ConnectionType::Offline => Connection::Always,
        ConnectionType::OnDemand => Connection::OnDemand {
            timeout: wanted.ondemand_timeout,
        },
    };
    let attached = match wanted.id {
        Some(id) => {
            check_size(manager.enumerate(), id, n_ipus)?;
            manager.attach(DeviceId(id), connection)
        }
        None => manager.attach_any(n_ipus, connection),
    };
    attached.map_err(|source| Error::Attach {
        system: request.machine.name.clone(),
        source,
    })
}

/// Refuses the id of a device that isn't one of `n_ipus` IPUs.
fn check_size(devices: &[Device], id: u32, n_ipus: u32) -> Result<()> {
    let found = devices.iter().find(|device| device.id.0 == id);
    if found.is_some_and(|device| device.n_ipus == n_ipus) {
        return Ok(());
    }
    let mut fitting = devices.iter().filter(|device| device.n_ipus == n_ipus);
    let expected = match (fitting.next(), fitting.next_back()) {
        (Some(first), Some(last)) => format!("ids {} to {}", first.id.0, last.id.0),
        (Some(only), None) => format!("id {}", only.id.0),
        (None, _) => "none on this system".into(),
    };
    Err(Error::OutOfRange {
        option: "--device-id",
        expected: format!("a device of size {n_ipus} ({expected})"),
        found: match found {
            Some(device) => format!("{id} of size {}", device.n_ipus),
            None => id.to_string(),
        },
    })
}

/// Builds the model, compiles it for the machine, loads it on the device and runs one step.
/// `plans` are those known for the machine; what had to be planned is added.
///
/// # Errors
///
/// A model that can't be built or placed, a device that fails, a file to leave behind that can't
/// be written. Too little memory is no error: the
/// device refuses the program, which is then weighed and timed without it, and the metrics say so.
pub fn run(
    request: &RunRequest,
    device: AttachedDevice,
    inspect: &Inspect,
    plans: &PlanCache,
) -> Result<TimedMetrics> {
    let machine = Arc::clone(device.machine());
    let watch = Stopwatch::start();
    let mut graphs = inspect.graphs();
    let mut see = |pass: &'static str, graph: &_| graphs.see(pass, graph);
    let config = &request.options.config;
    let compiled = compile(config, &machine, plans, Watch::by(&mut see));
    let compiled = compiled.map_err(|error| Error::Compile {
        machine: request.machine.name.clone(),
        source: Box::new(error.into()),
    })?;
    graphs.finish()?;
    let program = Arc::clone(&compiled.program);
    inspect.write_program(&program)?;
    let loaded = device.load(Executable {
        name: "bert".into(),
        program: Arc::clone(&program),
        timing: TIMING,
        float_control: FloatControl::default(),
        // How long a simulation takes says nothing of the machine.
        host_sync_timeout: None,
    });
    let compile_time = watch.seconds();
    let watch = Stopwatch::start();
    let (weight, timeline) = match loaded {
        Ok(mut device) => {
            let timeline = device.run(Mode::Time)?;
            (device.weight().clone(), timeline)
        }
        Err(DeviceError::OutOfMemory(_) | DeviceError::OutOfStreamingMemory(_)) => {
            let weight = weigh::weigh(&program, &machine).map_err(bench_core::Error::from)?;
            let timeline = engine::time(&program, &machine, TIMING);
            let timeline = timeline.map_err(bench_core::Error::from)?;
            (weight, Arc::new(timeline))
        }
        Err(error) => return Err(error.into()),
    };
    inspect.write_memory(&program, &machine, &weight)?;
    let host_seconds = HostTimes {
        compile: compile_time,
        simulate: watch.seconds(),
    };
    Ok(TimedMetrics {
        metrics: metrics(config, &machine, &compiled, &weight, &timeline),
        host_seconds,
    })
}
