//! One run: from a request to its metrics.
//!
//! The model becomes a graph, the graph a program, the program is loaded on a device of the
//! simulated machine and run there once. All numbers of a report come from that one program.
//!
//! Who shares a device with whom: [`crate::locks`].

use std::sync::Arc;

use anyhow::Context;
use ipu_sim::device::{
    AttachedDevice, Connection, Device, DeviceError, DeviceId, DeviceManager, Executable, Mode,
    Ports,
};
use ipu_sim::engine::{self, Timeline};
use ipu_sim::execute::FloatControl;
use ipu_sim::program::StreamId;
use ipu_sim::units::{Cycles, SimSeconds};
use ipu_sim::weigh::{self, MemoryUsage};
use popart_graph::passes::Watch;
use popart_graph::plan::PlanCache;

use crate::accuracy::domain::Features;
use crate::accuracy::effects::Effects;
use crate::accuracy::machine::Constants;
use crate::accuracy::{Record, Subject};
use crate::clock::{HostClock, Stopwatch};
use crate::config::options::ConnectionType;
use crate::explain::Explanation;
use crate::inspect::Inspect;
use crate::measure::{self, Samples, latency};
use crate::metrics::{FullestTile, HostTimes, IpuMemory, Metrics, Taken};
use crate::request::RunRequest;
use crate::utilisation::Utilisation;
use crate::{Error, compile, locks};

/// How steps are timed.
pub(crate) const TIMING: engine::Options = engine::Options {
    mode: engine::Mode::Folded,
    trace_depth: 0,
};

/// Attaches a device and runs one step there.
///
/// # Errors
///
/// As [`acquire`] and [`run`].
pub fn simulate(request: &RunRequest) -> anyhow::Result<Metrics> {
    let plans = compile::plans_for(&request.machine.spec);
    run(request, acquire(request)?, &Inspect::default(), &plans)
}

/// Attaches the device that the request asks for: by its id, or else the first free one of the
/// smallest size that holds all replicas. On demand, this may take host time.
///
/// # Errors
///
/// [`Error::OutOfRange`] for the id of a device of another size; a machine without devices that
/// large; a device that others keep.
pub fn acquire(request: &RunRequest) -> anyhow::Result<AttachedDevice> {
    let machine = request.machine.spec.clone();
    let wanted = &request.options.device;
    let n_ipus = request.options.placement.ipus_requested;
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
    attached.with_context(|| format!("system {}", request.machine.name))
}

/// Refuses the id of a device that isn't one of `n_ipus` IPUs.
fn check_size(devices: &[Device], id: u32, n_ipus: u32) -> crate::Result<()> {
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
) -> anyhow::Result<Metrics> {
    let machine = Arc::clone(device.machine());
    let watch = Stopwatch::start();
    let mut graphs = inspect.graphs();
    let mut see = |pass: &'static str, graph: &_| graphs.see(pass, graph);
    let watch_passes = Watch::by(&mut see);
    let compiled = compile::compile(&request.options, &machine, plans, watch_passes)
        .with_context(|| format!("while compiling for {}", request.machine.name))?;
    graphs.finish()?;
    inspect.write_program(&compiled.lowered.program)?;
    let lowered = compiled.lowered;
    let read = lowered.inputs.first().map(|&(_, stream)| stream);
    let write = lowered.outputs.last().map(|&(_, stream)| stream);
    let ends = read.zip(write).filter(|_| compiled.inference);
    let program = Arc::new(lowered.program);
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
    let (weight, timeline, refusal) = match loaded {
        Ok(mut device) => {
            let timeline = device.run(Mode::Time)?;
            (device.weight().clone(), timeline, None)
        }
        Err(refusal @ (DeviceError::OutOfMemory(_) | DeviceError::OutOfStreamingMemory(_))) => {
            let weight = weigh::weigh(&program, &machine)?;
            let timeline = engine::time(&program, &machine, TIMING)?;
            (weight, Arc::new(timeline), Some(refusal.to_string()))
        }
        Err(error) => return Err(error.into()),
    };
    inspect.write_memory(&program, &machine, &weight)?;
    let host_seconds = HostTimes {
        compile: compile_time,
        simulate: watch.seconds(),
    };
    let seconds = |cycles: Cycles| machine.tile.clock.seconds(cycles);
    let step_seconds = seconds(timeline.total);
    let latencies = ends.map_or_else(Vec::new, |ends| latencies(ends, &timeline, seconds));
    let throughput = measure::sequences_per_second(&request.options.batching, step_seconds);
    let time = Explanation::new(&program, &lowered.profile, &timeline, &compiled.placed);
    let subject = Subject {
        features: Features::new(&request.options, &machine, &time),
        effects: Effects::of(&timeline, &machine),
        constants: Constants::of(&machine),
        fits: refusal.is_none(),
    };
    Ok(Metrics {
        throughput_sequences_per_second: throughput,
        accuracy: Record::shipped().accuracy(throughput, &subject),
        step_seconds,
        step_cycles: timeline.total,
        device_cycles: timeline.device_cycles(),
        latency_seconds: latency(&latencies),
        latencies,
        host_seconds,
        fits: refusal.is_none(),
        out_of_memory: refusal,
        overflow: Taken::too_much(&weight),
        ipus: memory(&weight),
        time,
        utilisation: Utilisation::new(&program, &timeline, &machine),
    })
}

/// Latencies of the first and the last micro-batch of a step, from the stream read first to the
/// one written last; those between are like the last.
fn latencies(
    (read, write): (StreamId, StreamId),
    timeline: &Timeline,
    seconds: impl Fn(Cycles) -> SimSeconds,
) -> Vec<Samples> {
    let first = timeline.latency_first(read, write);
    let last = timeline.latency_last(read, write);
    let count = timeline.streams[write].map_or(0, |stream| stream.transfers);
    let alike = |cycles, count| Samples {
        value: seconds(cycles),
        count,
    };
    let first = first.map(|cycles| alike(cycles, 1));
    let later = last.map(|cycles| alike(cycles, count.saturating_sub(1)));
    first.into_iter().chain(later).collect()
}

fn memory(weight: &MemoryUsage) -> Vec<IpuMemory> {
    weight
        .ipus
        .values()
        .map(|ipu| IpuMemory {
            max_tile_bytes: ipu.max(),
            total_bytes: ipu.total,
            bytes_by_category: weigh::Category::all()
                .map(|category| (category.name(), ipu.sum(category)))
                .collect(),
            fullest_tile: FullestTile {
                tile: ipu.max_tile.0,
                fullest_at: ipu.fullest_at.iter().map(ToString::to_string).collect(),
                bytes_by_category: weigh::Category::all()
                    .map(|category| (category.name(), ipu.on(category, ipu.max_tile)))
                    .collect(),
                largest: ipu.largest.clone(),
            },
        })
        .collect()
}
