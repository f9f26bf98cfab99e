//! What is loaded on a device, and whether it fits there.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::error::{DeviceError, Result};
use super::inventory::Device;
use crate::engine;
use crate::execute::FloatControl;
use crate::program::{Program, Step, StreamId, Transfer};
use crate::replica::{ReplicaError, ReplicaPlacement};
use crate::spec::MachineSpec;
use crate::topology::Topology;
use crate::weigh::{MemoryUsage, check_streaming_memory, weigh};

/// A compiled program, ready to be loaded. Clones share the program.
#[derive(Clone, Debug)]
pub struct Executable {
    /// For people.
    pub name: String,
    /// Program that runs.
    pub program: Arc<Program>,
    /// How its runs are timed.
    pub timing: engine::Options,
    /// How tiles round results, and which of them are exceptions.
    pub float_control: FloatControl,
    /// Host time that a run may take from one sync with the host to the next before it counts as
    /// hung; none to wait for ever. Host callbacks don't count, working out the time of a run does.
    /// Poplar's option is `target.hostSyncTimeout`, with [`HOST_SYNC_TIMEOUT`] as its default.
    pub host_sync_timeout: Option<Duration>,
}

/// Host time that Poplar waits for a sync (Poplar API reference, "RuntimeOptions").
pub const HOST_SYNC_TIMEOUT: Duration = Duration::from_secs(300);

impl Executable {
    /// The IPUs of all replicas.
    fn n_ipus(&self) -> u64 {
        u64::from(self.program.n_ipus) * u64::from(self.program.n_replicas)
    }

    /// The streams that its steps use, in ascending order.
    pub(super) fn streams(&self) -> Vec<StreamId> {
        let mut streams = BTreeSet::new();
        let functions = self.program.functions.values();
        let bodies = functions.map(|function| &function.steps);
        for steps in bodies.chain([&self.program.steps]) {
            collect_streams(steps, &mut streams);
        }
        streams.into_iter().collect()
    }
}

fn collect_streams(steps: &[Step], streams: &mut BTreeSet<StreamId>) {
    for step in steps {
        match step {
            Step::Transfers { transfers, .. } => {
                streams.extend(transfers.iter().filter_map(|transfer| match transfer {
                    Transfer::HostRead { stream, .. } | Transfer::HostWrite { stream, .. } => {
                        Some(*stream)
                    }
                    Transfer::RemoteLoad { .. } | Transfer::RemoteStore { .. } => None,
                }));
            }
            Step::Repeat { body, .. } => collect_streams(body, streams),
            Step::Compute(_)
            | Step::Exchange(_)
            | Step::IpuCopies { .. }
            | Step::Collective(_)
            | Step::Call(_)
            | Step::Section(_) => {}
        }
    }
}

/// The memory that `executable` takes on `device` of `machine`, where it fits.
///
/// # Errors
///
/// [`DeviceError::Replicas`] for a program without IPUs, [`DeviceError::WrongIpuCount`] unless the
/// device is the smallest kind that has enough IPUs, [`DeviceError::TooManyTiles`] for a program of
/// a larger chip, [`DeviceError::BadProgram`] for one that breaks a rule of [`crate::verify`],
/// [`DeviceError::OutOfStreamingMemory`] or [`DeviceError::OutOfMemory`] for one that is too large.
pub(super) fn fit(
    executable: &Executable,
    device: Device,
    machine: &MachineSpec,
) -> Result<MemoryUsage> {
    let program = &executable.program;
    if executable.n_ipus() == 0 {
        return Err(ReplicaError::None.into());
    }
    let expected = executable.n_ipus().checked_next_power_of_two();
    let expected = expected.unwrap_or(u64::MAX);
    if expected != u64::from(device.n_ipus) {
        return Err(DeviceError::WrongIpuCount {
            executable: executable.name.clone(),
            expected,
            got: device.n_ipus,
        });
    }
    let tiles = program.layouts.iter().map(|layout| layout.tile_end());
    let tiles = tiles.max().unwrap_or(0);
    if tiles > machine.tile.tiles_per_ipu {
        return Err(DeviceError::TooManyTiles {
            executable: executable.name.clone(),
            available: machine.tile.tiles_per_ipu,
            needed: tiles,
        });
    }
    program.verify(machine)?;
    let topology = Topology::new(machine);
    let placement = ReplicaPlacement::new(&topology, program.n_replicas, program.n_ipus)?;
    check_streaming_memory(program, machine, &topology, placement)?;
    let weight = weigh(program, machine)?;
    weight.verdict()?;
    Ok(weight)
}
