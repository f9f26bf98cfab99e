//! Buffers of streams beside the device.
//!
//! What the host sends waits in the gateway until the device asks for it, and what the device sends
//! waits there for the host. A buffer holds some elements: as long as one is ready, or one is free,
//! the device only sees the route between gateway and IPU, while the network behind it works on.
//! Without a buffer (no prefetch) an element is fetched when it is asked for.
//!
//! When a program begins, the host has filled the buffers already.

use std::collections::VecDeque;

use super::Walker;
use crate::engine::events::{Event, Key};
use crate::engine::schedule::Stream;
use crate::engine::timeline::StreamTime;
use crate::program::StreamId;
use crate::topology::HostDirection;
use crate::units::Cycles;

/// One stream of a class of replicas, at some moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BufferState {
    /// Elements that wait here: for the device, or for the host.
    pub(super) full: u32,
    /// Places that something on its way from or to the device holds.
    pub(super) held: u32,
    /// Whether an element is on its way between host and buffer.
    pub(super) busy: bool,
    /// Parts of steps that wait: first actor and position.
    pub(super) waiting: VecDeque<(usize, usize)>,
}

impl BufferState {
    pub(super) fn new(stream: &Stream) -> Self {
        let comes = stream
            .buffer
            .is_some_and(|buffer| buffer.direction == HostDirection::In);
        Self {
            full: if comes { stream.depth } else { 0 },
            held: 0,
            busy: false,
            waiting: VecDeque::new(),
        }
    }
}

/// When elements of a stream passed, as it becomes known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct StreamTally {
    begins: Option<(Cycles, Cycles)>,
    ends: Option<(Cycles, Cycles)>,
    pub(super) transfers: u64,
}

impl StreamTally {
    pub(super) fn begin(&mut self, now: Cycles, weight: u64) {
        self.begins = Some((self.begins.map_or(now, |(first, _)| first), now));
        self.transfers += weight;
    }

    pub(super) fn end_at(&mut self, now: Cycles) {
        self.ends = Some((self.ends.map_or(now, |(first, _)| first), now));
    }

    /// When the last one was through.
    pub(super) fn end(&self) -> Option<Cycles> {
        self.ends.map(|(_, last)| last)
    }

    pub(super) fn shift(&mut self, by: Cycles) {
        for (_, last) in self.begins.iter_mut().chain(&mut self.ends) {
            *last += by;
        }
    }

    pub(super) fn time(&self) -> Option<StreamTime> {
        let ((first_begin, last_begin), (first_end, last_end)) = (self.begins?, self.ends?);
        Some(StreamTime {
            first_begin,
            first_end,
            last_begin,
            last_end,
            transfers: self.transfers,
        })
    }
}

impl Walker<'_> {
    /// Part of a step wants an element, or a place for one.
    pub(super) fn ask_buffer(
        &mut self,
        class: usize,
        stream: StreamId,
        direction: HostDirection,
        part: (usize, usize),
        now: Cycles,
    ) {
        self.buffers[class][stream].waiting.push_back(part);
        self.serve(class, stream, direction, now);
        self.refill(class, stream, now);
    }

    /// Lets those go on that wait, as far as elements or places are there.
    fn serve(&mut self, class: usize, stream: StreamId, direction: HostDirection, now: Cycles) {
        let places = self.linked.schedule.streams[stream].depth.max(1);
        loop {
            let buffer = &mut self.buffers[class][stream];
            let serves = match direction {
                HostDirection::In => buffer.full > 0,
                HostDirection::Out => buffer.full + buffer.held < places,
            };
            if !serves {
                return;
            }
            let Some((actor, position)) = buffer.waiting.pop_front() else {
                return;
            };
            buffer.held += 1;
            if direction == HostDirection::In {
                buffer.full -= 1;
            }
            self.begin_part(actor, position, now);
        }
    }

    /// An element has left for the device or arrived from it.
    pub(super) fn leave_buffer(
        &mut self,
        class: usize,
        stream: StreamId,
        direction: HostDirection,
        now: Cycles,
    ) {
        let buffer = &mut self.buffers[class][stream];
        buffer.held -= 1;
        match direction {
            HostDirection::In => self.refill(class, stream, now),
            HostDirection::Out => {
                buffer.full += 1;
                self.drain(class, stream, now);
            }
        }
    }

    /// The host sends another element, if there is a place for it and it isn't sending already.
    fn refill(&mut self, class: usize, stream: StreamId, now: Cycles) {
        let spec = &self.linked.schedule.streams[stream];
        if spec
            .buffer
            .is_none_or(|buffer| buffer.direction == HostDirection::Out)
        {
            return;
        }
        let buffer = &mut self.buffers[class][stream];
        let wanted = if buffer.waiting.is_empty() {
            spec.depth
        } else {
            spec.depth.max(1)
        };
        if !buffer.busy && buffer.full + buffer.held < wanted {
            buffer.busy = true;
            self.queue
                .push(now + spec.latency, Event::Fill(class, stream));
        }
    }

    pub(super) fn begin_fill(&mut self, class: usize, stream: StreamId, now: Cycles) {
        self.cross(class, stream, now);
    }

    /// The host takes an element, if one is there and it isn't taking one already.
    fn drain(&mut self, class: usize, stream: StreamId, now: Cycles) {
        let buffer = &mut self.buffers[class][stream];
        if buffer.full > 0 && !buffer.busy {
            buffer.busy = true;
            self.cross(class, stream, now);
        }
    }

    /// An element sets out between host and buffer.
    fn cross(&mut self, class: usize, stream: StreamId, now: Cycles) {
        let buffer = self.linked.schedule.streams[stream].buffer;
        let buffer = buffer.expect("a stream that is used has a buffer");
        match self.linked.route(class, buffer.ends) {
            Some(route) => self.begin_flow(Key::Buffer(class, stream), route, buffer.bytes, now),
            None => self.end_buffering(class, stream, now),
        }
    }

    /// An element has arrived at the buffer, or at the host.
    pub(super) fn end_buffering(&mut self, class: usize, stream: StreamId, now: Cycles) {
        let direction = self.linked.schedule.streams[stream]
            .buffer
            .map(|buffer| buffer.direction);
        let direction = direction.expect("a stream that is used has a buffer");
        let buffer = &mut self.buffers[class][stream];
        buffer.busy = false;
        match direction {
            HostDirection::In => buffer.full += 1,
            HostDirection::Out => {
                buffer.full -= 1;
                self.streams[class][stream].end_at(now);
            }
        }
        self.serve(class, stream, direction, now);
        match direction {
            HostDirection::In => self.refill(class, stream, now),
            HostDirection::Out => self.drain(class, stream, now),
        }
    }

    /// A step with this stream is through: what came is there; what leaves may still be on its way.
    pub(super) fn delivered(
        &mut self,
        class: usize,
        stream: StreamId,
        direction: HostDirection,
        end: Cycles,
    ) {
        if direction == HostDirection::In {
            self.streams[class][stream].end_at(end);
        }
    }
}
