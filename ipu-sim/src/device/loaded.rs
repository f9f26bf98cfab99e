//! A device with an executable on it: loading, streams, runs, counters, values.

use std::fmt;
use std::sync::Arc;

use super::attached::AttachedDevice;
use super::condition::Condition;
use super::error::{DeviceError, Result};
use super::executable::{Executable, fit};
use super::failure::RecoveryAction;
use super::memory::ValueAddress;
use super::streams::{HostStream, Streams};
use super::sync::{Sender, channel};
use super::thread::{DeviceThread, Load, Request};
use super::{Counters, Mode};
use crate::engine::Timeline;
use crate::ids::{Id, ReplicaId};
use crate::program::{RemoteBufferId, StreamId, VarId};
use crate::weigh::MemoryUsage;

/// A loaded device. Dropping it unloads and detaches it.
///
/// Values are those of a whole variable, in logical order, last axis fastest; they are rounded
/// to its element type.
///
/// It belongs to one thread at a time, and runs one program at a time:
///
/// ```compile_fail,E0277
/// use ipu_sim::device::LoadedDevice;
///
/// fn share(device: &LoadedDevice) {
///     std::thread::scope(|scope| {
///         scope.spawn(|| device.counters());
///     });
/// }
/// ```
///
/// ```compile_fail,E0596
/// use ipu_sim::device::{LoadedDevice, Mode};
///
/// fn run_what_others_use(device: &LoadedDevice) {
///     device.run(Mode::Time);
/// }
/// ```
///
/// What was unloaded or detached is gone:
///
/// ```compile_fail,E0382
/// use ipu_sim::device::{AttachedDevice, LoadedDevice};
///
/// fn read_unloaded(device: LoadedDevice) {
///     let attached: AttachedDevice = device.unload();
///     device.counters();
/// }
/// ```
pub struct LoadedDevice {
    // Dropped before `attached`, whose thread waits for that.
    requests: Option<Sender<Request>>,
    streams: Streams,
    weight: MemoryUsage,
    executable: Executable,
    attached: AttachedDevice,
}

impl AttachedDevice {
    /// Loads an executable, after a reset of the IPUs. A refusal detaches the device.
    ///
    /// # Errors
    ///
    /// [`DeviceError::WrongIpuCount`] unless the device is the smallest group that has room for all
    /// replicas, [`DeviceError::TooManyTiles`] for a program of a larger chip,
    /// [`DeviceError::BadProgram`] for one that breaks a rule of [`crate::verify`],
    /// [`DeviceError::OutOfMemory`] with the fullest tile and its largest variables,
    /// [`DeviceError::OutOfStreamingMemory`], [`DeviceError::Replicas`] for a program of nothing;
    /// [`DeviceError::Hardware`] if something is wrong with the machine, and what stopped the
    /// device if that needs more than a reset.
    pub fn load(mut self, executable: Executable) -> Result<LoadedDevice> {
        let weight = fit(&executable, self.device(), self.machine())?;
        if self.link().is_some() {
            self.recover(RecoveryAction::IpuReset)?;
        }
        LoadedDevice::new(self, executable, weight)
    }
}

impl LoadedDevice {
    fn new(attached: AttachedDevice, executable: Executable, weight: MemoryUsage) -> Result<Self> {
        let mut requests = None;
        if let Some(link) = attached.link() {
            let (sender, receiver) = channel();
            link.thread.load(Load {
                executable: executable.clone(),
                machine: Arc::clone(attached.machine()),
                device: attached.device(),
                ports: link.lease.ports().clone(),
                requests: receiver,
            })?;
            requests = Some(sender);
        }
        Ok(Self {
            requests,
            streams: Streams::default(),
            weight,
            executable,
            attached,
        })
    }

    /// The device that it is loaded on.
    #[must_use]
    pub fn attached(&self) -> &AttachedDevice {
        &self.attached
    }

    /// The executable that is loaded.
    #[must_use]
    pub fn executable(&self) -> &Executable {
        &self.executable
    }

    /// The memory that the executable takes on every tile.
    #[must_use]
    pub fn weight(&self) -> &MemoryUsage {
        &self.weight
    }

    /// Takes the executable off the device, with all its values.
    #[must_use]
    pub fn unload(self) -> AttachedDevice {
        self.attached
    }

    /// Connects the host's end of a stream, instead of what was connected before.
    ///
    /// # Errors
    ///
    /// [`DeviceError::NoSuchId`].
    pub fn connect(&mut self, stream: StreamId, end: impl HostStream + 'static) -> Result<()> {
        check_id("stream", stream, self.executable.program.streams.len())?;
        self.streams.connect(stream, Box::new(end));
        Ok(())
    }

    /// Runs the program once. What it executes goes on from the values of the last run.
    ///
    /// Every run takes the same time. Streams are called back on this thread. A run that fails,
    /// or that a panic in a stream ends, stops the device ([`Self::condition`]).
    ///
    /// # Errors
    ///
    /// [`DeviceError::Offline`]; what has stopped the device before;
    /// [`DeviceError::StreamNotConnected`], before anything starts; [`DeviceError::Execute`] for
    /// what goes wrong among the values, which are then those that the failing step left;
    /// [`DeviceError::HostSyncTimeout`]; [`DeviceError::Hardware`]; [`DeviceError::DeviceFailed`].
    pub fn run(&mut self, mode: Mode) -> Result<Arc<Timeline>> {
        self.check_start(mode)?;
        // Replaced unless a stream panics.
        let device = self.attached.device().id;
        self.attached.condition = Condition::after(&DeviceError::HostLeft { device });
        let (thread, requests) = line(&self.attached, self.requests.as_ref())?;
        let outcome = thread.run(requests, mode, &mut self.streams);
        self.attached.condition = match &outcome {
            Ok(_) => Condition::Ready,
            Err(error) => Condition::after(error),
        };
        outcome
    }

    /// Reads the counters.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Offline`]; what has stopped the device, if it needs a power cycle or more.
    pub fn counters(&self) -> Result<Counters> {
        self.attached.condition.check_readable()?;
        self.ask(|answer| Request::Counters { answer })
    }

    /// State of the device, which says what requests it answers.
    #[must_use]
    pub fn condition(&self) -> &Condition {
        &self.attached.condition
    }

    /// Resets the IPUs: [`Self::recover`] with [`RecoveryAction::IpuReset`].
    ///
    /// # Errors
    ///
    /// As [`Self::recover`].
    pub fn reset(&mut self) -> Result<()> {
        self.recover(RecoveryAction::IpuReset)
    }

    /// Carries out a recovery action and loads the executable again, which forgets all values and
    /// counts; streams stay connected.
    ///
    /// # Errors
    ///
    /// As [`AttachedDevice::recover`].
    pub fn recover(&mut self, action: RecoveryAction) -> Result<()> {
        self.attached.recover(action)?;
        self.ask(|answer| Request::Reset { answer })
    }

    /// Reads a variable of one replica.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Execute`] if an element was never written or its copies differ,
    /// [`DeviceError::NoSuchId`], [`DeviceError::Offline`]; what has stopped the device, if it
    /// needs a power cycle or more.
    pub fn read(&self, replica: ReplicaId, var: VarId) -> Result<Vec<f64>> {
        self.read_place(ValueAddress {
            replica,
            var,
            buffer: None,
        })
    }

    /// Writes a variable of one replica.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Execute`] for another number of values than elements,
    /// [`DeviceError::NoSuchId`], [`DeviceError::Offline`]; what has stopped the device.
    pub fn write(&mut self, replica: ReplicaId, var: VarId, values: &[f64]) -> Result<()> {
        let place = ValueAddress {
            replica,
            var,
            buffer: None,
        };
        self.write_place(place, values)
    }

    /// Reads a buffer of streaming memory of one replica, as `var` stores its elements.
    ///
    /// # Errors
    ///
    /// As [`Self::read`], and [`DeviceError::Execute`] for a buffer of another size.
    pub fn read_remote(
        &self,
        replica: ReplicaId,
        buffer: RemoteBufferId,
        var: VarId,
    ) -> Result<Vec<f64>> {
        self.read_place(ValueAddress {
            replica,
            var,
            buffer: Some(buffer),
        })
    }

    /// Writes a buffer of streaming memory of one replica, as `var` stores its elements.
    ///
    /// # Errors
    ///
    /// As [`Self::write`], and [`DeviceError::Execute`] for a buffer that is too small.
    pub fn write_remote(
        &mut self,
        replica: ReplicaId,
        buffer: RemoteBufferId,
        var: VarId,
        values: &[f64],
    ) -> Result<()> {
        let place = ValueAddress {
            replica,
            var,
            buffer: Some(buffer),
        };
        self.write_place(place, values)
    }

    /// The only variable of this name.
    ///
    /// # Errors
    ///
    /// [`DeviceError::NotOne`] if there is none, or more than one.
    pub fn variable(&self, name: &str) -> Result<VarId> {
        let vars = self.executable.program.vars.iter();
        only_one("variable", name, vars.map(|(id, var)| (id, &var.name)))
    }

    /// The only stream of this name.
    ///
    /// # Errors
    ///
    /// [`DeviceError::NotOne`] if there is none, or more than one.
    pub fn stream(&self, name: &str) -> Result<StreamId> {
        let streams = self.executable.program.streams.iter();
        let names = streams.map(|(id, stream)| (id, &stream.name));
        only_one("stream", name, names)
    }

    /// Unloads and detaches, as dropping does.
    pub fn detach(self) {}

    /// Refuses a run before anything of it has started.
    fn check_start(&self, mode: Mode) -> Result<()> {
        line(&self.attached, self.requests.as_ref())?;
        self.attached.condition.check_ready()?;
        if mode == Mode::Time {
            return Ok(());
        }
        match self.streams.first_missing(&self.executable.streams()) {
            Some(stream) => Err(DeviceError::StreamNotConnected {
                stream: self.executable.program.streams[stream].name.clone(),
            }),
            None => Ok(()),
        }
    }

    fn read_place(&self, place: ValueAddress) -> Result<Vec<f64>> {
        self.check_place(place)?;
        self.attached.condition.check_readable()?;
        self.ask(|answer| Request::Read { place, answer })?
    }

    fn write_place(&self, place: ValueAddress, values: &[f64]) -> Result<()> {
        self.check_place(place)?;
        self.attached.condition.check_ready()?;
        let values = values.to_vec();
        self.ask(|answer| Request::Write {
            place,
            values,
            answer,
        })?
    }

    fn check_place(&self, place: ValueAddress) -> Result<()> {
        let program = &self.executable.program;
        check_id("replica", place.replica, program.n_replicas as usize)?;
        check_id("variable", place.var, program.vars.len())?;
        match place.buffer {
            Some(buffer) => check_id("remote buffer", buffer, program.remote_buffers.len()),
            None => Ok(()),
        }
    }

    fn ask<T>(&self, request: impl FnOnce(Sender<T>) -> Request) -> Result<T> {
        let (thread, requests) = line(&self.attached, self.requests.as_ref())?;
        thread.ask(requests, request)
    }
}

/// The device's thread and its ear for requests.
fn line<'l>(
    attached: &'l AttachedDevice,
    requests: Option<&'l Sender<Request>>,
) -> Result<(&'l DeviceThread, &'l Sender<Request>)> {
    match (attached.link(), requests) {
        (Some(link), Some(requests)) => Ok((&link.thread, requests)),
        _ => Err(DeviceError::Offline {
            device: attached.device().id,
        }),
    }
}

fn check_id(what: &'static str, id: impl Id, count: usize) -> Result<()> {
    let number = id.index();
    if number < count {
        return Ok(());
    }
    Err(DeviceError::NoSuchId {
        what,
        number,
        count,
    })
}

fn only_one<'n, I>(
    what: &'static str,
    name: &str,
    names: impl Iterator<Item = (I, &'n String)>,
) -> Result<I> {
    let mut found: Vec<I> = names
        .filter(|(_, other)| *other == name)
        .map(|(id, _)| id)
        .collect();
    match found.pop() {
        Some(id) if found.is_empty() => Ok(id),
        last => Err(DeviceError::NotOne {
            what,
            name: name.to_owned(),
            found: found.len() + usize::from(last.is_some()),
        }),
    }
}

impl fmt::Debug for LoadedDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadedDevice")
            .field("executable", &self.executable.name)
            .field("attached", &self.attached)
            .finish_non_exhaustive()
    }
}
