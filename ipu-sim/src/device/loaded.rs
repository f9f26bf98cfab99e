//! A device with an executable on it: streams, runs, counters, values.

use std::fmt;
use std::sync::Arc;

use crossbeam::channel::{Sender, unbounded};

use super::attached::Attached;
use super::executable::Executable;
use super::streams::{HostStream, Streams};
use super::thread::{DeviceThread, Load, Place, Request};
use super::{Counters, Mode};
use crate::engine::Timeline;
use crate::error::{Error, Result};
use crate::ids::{Id, ReplicaId};
use crate::program::{RemoteBufferId, StreamId, VarId};
use crate::weigh::Weight;

/// A loaded device. Dropping it unloads and detaches it.
///
/// Values are those of a whole variable, in logical order, last axis fastest; they are rounded
/// to its element type.
pub struct Loaded {
    // Dropped before `attached`, whose thread waits for that.
    requests: Option<Sender<Request>>,
    streams: Streams,
    weight: Weight,
    executable: Executable,
    attached: Attached,
}

impl Loaded {
    pub(super) fn new(attached: Attached, executable: Executable, weight: Weight) -> Result<Self> {
        let mut requests = None;
        if let Some(link) = attached.link() {
            let (sender, receiver) = unbounded();
            link.thread.load(Load {
                executable: executable.clone(),
                machine: Arc::clone(attached.machine()),
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
    pub fn attached(&self) -> &Attached {
        &self.attached
    }

    /// What is loaded.
    #[must_use]
    pub fn executable(&self) -> &Executable {
        &self.executable
    }

    /// The memory that the executable takes on every tile.
    #[must_use]
    pub fn weight(&self) -> &Weight {
        &self.weight
    }

    /// Takes the executable off the device, with all its values.
    #[must_use]
    pub fn unload(self) -> Attached {
        self.attached
    }

    /// Connects the host's end of a stream, instead of what was connected before.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchId`].
    pub fn connect(&mut self, stream: StreamId, end: impl HostStream + 'static) -> Result<()> {
        check_id("stream", stream, self.executable.program.streams.len())?;
        self.streams.connect(stream, Box::new(end));
        Ok(())
    }

    /// Runs the program once. What it executes goes on from the values of the last run.
    ///
    /// Every run takes the same time. Streams are called back on this thread.
    ///
    /// # Errors
    ///
    /// [`Error::Offline`]; [`Error::Execute`] for what goes wrong among the values, which are
    /// then those that the failing step left; [`Error::DeviceFailed`], after which the device
    /// answers nothing else.
    pub fn run(&mut self, mode: Mode) -> Result<Arc<Timeline>> {
        let (thread, requests) = line(&self.attached, self.requests.as_ref())?;
        thread.run(requests, mode, &mut self.streams)
    }

    /// Reads the counters.
    ///
    /// # Errors
    ///
    /// [`Error::Offline`], [`Error::DeviceFailed`].
    pub fn counters(&self) -> Result<Counters> {
        self.ask(|answer| Request::Counters { answer })
    }

    /// Forgets all values and counts; streams stay connected.
    ///
    /// # Errors
    ///
    /// [`Error::Offline`], [`Error::DeviceFailed`].
    pub fn reset(&mut self) -> Result<()> {
        self.ask(|answer| Request::Reset { answer })
    }

    /// Reads a variable of one replica.
    ///
    /// # Errors
    ///
    /// [`Error::Execute`] if an element was never written or its copies differ,
    /// [`Error::NoSuchId`], [`Error::Offline`], [`Error::DeviceFailed`].
    pub fn read(&self, replica: ReplicaId, var: VarId) -> Result<Vec<f64>> {
        self.read_place(Place {
            replica,
            var,
            buffer: None,
        })
    }

    /// Writes a variable of one replica.
    ///
    /// # Errors
    ///
    /// [`Error::Execute`] for another number of values than elements, [`Error::NoSuchId`],
    /// [`Error::Offline`], [`Error::DeviceFailed`].
    pub fn write(&mut self, replica: ReplicaId, var: VarId, values: &[f64]) -> Result<()> {
        let place = Place {
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
    /// As [`Self::read`], and [`Error::Execute`] for a buffer of another size.
    pub fn read_remote(
        &self,
        replica: ReplicaId,
        buffer: RemoteBufferId,
        var: VarId,
    ) -> Result<Vec<f64>> {
        self.read_place(Place {
            replica,
            var,
            buffer: Some(buffer),
        })
    }

    /// Writes a buffer of streaming memory of one replica, as `var` stores its elements.
    ///
    /// # Errors
    ///
    /// As [`Self::write`], and [`Error::Execute`] for a buffer that is too small.
    pub fn write_remote(
        &mut self,
        replica: ReplicaId,
        buffer: RemoteBufferId,
        var: VarId,
        values: &[f64],
    ) -> Result<()> {
        let place = Place {
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
    /// [`Error::NotOne`] if there is none, or more than one.
    pub fn variable(&self, name: &str) -> Result<VarId> {
        let vars = self.executable.program.vars.iter();
        only_one("variable", name, vars.map(|(id, var)| (id, &var.name)))
    }

    /// The only stream of this name.
    ///
    /// # Errors
    ///
    /// [`Error::NotOne`] if there is none, or more than one.
    pub fn stream(&self, name: &str) -> Result<StreamId> {
        let streams = self.executable.program.streams.iter();
        let names = streams.map(|(id, stream)| (id, &stream.name));
        only_one("stream", name, names)
    }

    /// Unloads and detaches, as dropping does.
    pub fn detach(self) {}

    fn read_place(&self, place: Place) -> Result<Vec<f64>> {
        self.check_place(place)?;
        self.ask(|answer| Request::Read { place, answer })?
    }

    fn write_place(&self, place: Place, values: &[f64]) -> Result<()> {
        self.check_place(place)?;
        let values = values.to_vec();
        self.ask(|answer| Request::Write {
            place,
            values,
            answer,
        })?
    }

    fn check_place(&self, place: Place) -> Result<()> {
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
    attached: &'l Attached,
    requests: Option<&'l Sender<Request>>,
) -> Result<(&'l DeviceThread, &'l Sender<Request>)> {
    match (attached.link(), requests) {
        (Some(link), Some(requests)) => Ok((&link.thread, requests)),
        _ => Err(Error::Offline {
            device: attached.device().id,
        }),
    }
}

fn check_id(what: &'static str, id: impl Id, count: usize) -> Result<()> {
    let number = id.index();
    if number < count {
        return Ok(());
    }
    Err(Error::NoSuchId {
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
        last => Err(Error::NotOne {
            what,
            name: name.to_owned(),
            found: found.len() + usize::from(last.is_some()),
        }),
    }
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded")
            .field("executable", &self.executable.name)
            .field("attached", &self.attached)
            .finish_non_exhaustive()
    }
}
