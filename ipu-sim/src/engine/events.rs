//! What is still to happen on links, in the order of time.
//!
//! Steps inside an IPU need no events: an IPU runs on its own clock until it has to wait.

use std::collections::BTreeMap;

use crate::program::StreamId;
use crate::units::Cycles;

/// A transfer that moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    /// Of a step, by its first actor and the position among what the step moves.
    Step(usize, usize),
    /// Between a host and a buffer, by class of replicas.
    Buffer(usize, StreamId),
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    /// What a step moves begins to move; by its first actor.
    Move(usize),
    /// The host begins to send the next element to a buffer; by class of replicas.
    Fill(usize, StreamId),
    /// A transfer is through, unless its rate has changed since.
    End {
        /// Which.
        key: Key,
        /// The rate it had.
        stamp: u64,
    },
}

/// Events ordered by time, and by when they entered where times are equal.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    events: BTreeMap<(Cycles, u64), Event>,
    entered: u64,
}

impl Queue {
    pub(super) fn push(&mut self, time: Cycles, event: Event) {
        self.events.insert((time, self.entered), event);
        self.entered += 1;
    }

    pub(super) fn pop(&mut self) -> Option<(Cycles, Event)> {
        self.events
            .pop_first()
            .map(|((time, _), event)| (time, event))
    }

    /// When the next one is.
    pub(super) fn next(&self) -> Option<Cycles> {
        self.events.first_key_value().map(|(&(time, _), _)| time)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Cycles, Event)> {
        self.events.iter().map(|(&(time, _), &event)| (time, event))
    }

    /// Moves what `chosen` picks to a later time; the order among them stays.
    pub(super) fn shift(&mut self, by: Cycles, chosen: impl Fn(Event) -> bool) {
        let events = std::mem::take(&mut self.events);
        self.events = events
            .into_iter()
            .map(|((time, entered), event)| {
                let by = if chosen(event) { by } else { Cycles::ZERO };
                ((time + by, entered), event)
            })
            .collect();
    }
}
