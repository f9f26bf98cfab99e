//! The host's ends of the streams.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::sync::Mutex;
use crate::execute::{Host, StreamError};
use crate::ids::ReplicaId;
use crate::program::StreamId;

/// The host's end of one stream, called while the device runs, on the thread that runs it.
///
/// An element is a whole variable: its values in logical order, last axis fastest. A stream
/// goes one way, so an implementation gives one of the two functions.
pub trait HostStream: Send {
    /// The next element to the device.
    ///
    /// # Errors
    ///
    /// [`StreamError::NotConnected`] unless overridden.
    fn read(&mut self, _: ReplicaId) -> Result<Vec<f64>, StreamError> {
        Err(StreamError::NotConnected)
    }

    /// Takes the next element from the device.
    ///
    /// # Errors
    ///
    /// [`StreamError::NotConnected`] unless overridden.
    fn write(&mut self, _: ReplicaId, _: Vec<f64>) -> Result<(), StreamError> {
        Err(StreamError::NotConnected)
    }
}

/// A queue of elements for each replica, for a stream in either direction.
///
/// Clones share their elements: one is connected, the other stays with the host.
#[derive(Clone, Debug, Default)]
pub struct StreamQueue {
    elements: Arc<Mutex<BTreeMap<ReplicaId, VecDeque<Vec<f64>>>>>,
}

impl StreamQueue {
    /// Adds an element behind the others of `replica`.
    pub fn push(&self, replica: ReplicaId, values: Vec<f64>) {
        let mut elements = self.elements.lock();
        elements.entry(replica).or_default().push_back(values);
    }

    /// Takes the first element of `replica`.
    #[must_use]
    pub fn pop(&self, replica: ReplicaId) -> Option<Vec<f64>> {
        self.elements.lock().get_mut(&replica)?.pop_front()
    }
}

impl HostStream for StreamQueue {
    fn read(&mut self, replica: ReplicaId) -> Result<Vec<f64>, StreamError> {
        self.pop(replica).ok_or(StreamError::Exhausted)
    }

    fn write(&mut self, replica: ReplicaId, values: Vec<f64>) -> Result<(), StreamError> {
        self.push(replica, values);
        Ok(())
    }
}

/// The connected streams of an executable.
#[derive(Default)]
pub(super) struct Streams(BTreeMap<StreamId, Box<dyn HostStream>>);

impl Streams {
    /// Connects a stream, instead of what was connected to it before.
    pub(super) fn connect(&mut self, stream: StreamId, end: Box<dyn HostStream>) {
        self.0.insert(stream, end);
    }

    /// The first of `wanted` to which nothing is connected.
    pub(super) fn first_missing(&self, wanted: &[StreamId]) -> Option<StreamId> {
        let mut wanted = wanted.iter().copied();
        wanted.find(|stream| !self.0.contains_key(stream))
    }

    fn end(&mut self, stream: StreamId) -> Result<&mut dyn HostStream, StreamError> {
        match self.0.get_mut(&stream) {
            Some(end) => Ok(end.as_mut()),
            None => Err(StreamError::NotConnected),
        }
    }
}

impl Host for Streams {
    fn read(&mut self, replica: ReplicaId, stream: StreamId) -> Result<Vec<f64>, StreamError> {
        self.end(stream)?.read(replica)
    }

    fn write(
        &mut self,
        replica: ReplicaId,
        stream: StreamId,
        values: Vec<f64>,
    ) -> Result<(), StreamError> {
        self.end(stream)?.write(replica, values)
    }
}
