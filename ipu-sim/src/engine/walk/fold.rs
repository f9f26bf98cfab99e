//! Repeats are folded, exactly.
//!
//! Whenever the leader of a group begins another pass, and all others wait, the state of the group
//! is written down relative to the leader's clock and pass: where everyone is, what moves and how
//! much of it is left, what is still to happen, what buffers hold. Once such a state recurs, all that
//! follows recurs too, for as long as nobody comes to the end of the repeat. One period is then
//! walked with its weight multiplied, and clocks, passes and what is still to happen are moved on.
//!
//! This needs that nobody outside can interfere: the group shares no link with others, or
//! all others wait for it. Where that doesn't hold, or passes never become alike, the repeat is
//! walked pass by pass.

use std::collections::BTreeMap;

use super::{Status, Walker};
use crate::engine::events::{Event, Key};
use crate::engine::linked::{Group, Linked};
use crate::ids::Id;
use crate::program::StreamId;
use crate::units::Cycles;

/// What is known of one group in one repeat.
#[derive(Clone, Debug, Default)]
pub(super) struct Folding {
    /// Passes of the leader by the state in which they began.
    seen: BTreeMap<Vec<i128>, u32>,
    active: Option<Active>,
}

/// A period that is walked for many.
#[derive(Clone, Debug)]
struct Active {
    state: Vec<i128>,
    /// The leader's pass at which it ends.
    until: u32,
    period: u32,
    times: u32,
    /// The leader's clock when it began.
    begin: Cycles,
    /// Transfers of each stream before it, by class and stream.
    transfers: Vec<u64>,
}

impl<'a> Walker<'a> {
    /// The leader of a group begins the repeat anew.
    pub(super) fn enter_repeat(&mut self, actor: usize, number: u32) {
        let repeat = &self.linked.repeats[number as usize];
        let group = repeat.group_of[actor].expect("it takes part");
        if repeat.groups[group as usize].actors[0] == actor {
            self.folds.insert((number, group), Folding::default());
        }
    }

    /// The leader of a group begins another pass, and all others wait.
    pub(super) fn boundary(&mut self, leader: usize) {
        let frame = self.actors[leader]
            .frames
            .last()
            .expect("it is in a repeat");
        let (number, pass) = (frame.repeat.expect("it is in a repeat"), frame.pass);
        let repeat = &self.linked.repeats[number as usize];
        let group_number = repeat.group_of[leader].expect("it leads a group");
        let group = &repeat.groups[group_number as usize];
        let id = (number, group_number);
        let mut folding = self.folds.remove(&id).expect("the leader has entered");
        if let Some(active) = &folding.active {
            if active.until == pass {
                assert_eq!(
                    self.state(group, number).as_ref(),
                    Some(&active.state),
                    "a state that recurs leads to itself"
                );
                self.move_on(group, leader, active);
                folding = Folding::default();
            }
        } else if self.may_fold(group, leader)
            && let Some(state) = self.state(group, number)
        {
            let depth = self.actors[leader].frames.len() - 1;
            let passes = group
                .actors
                .iter()
                .map(|&actor| self.actors[actor].frames[depth].pass);
            let ahead = passes.max().expect("a group has a leader");
            if let Some(first) = folding.seen.insert(state.clone(), pass) {
                let period = pass - first;
                let times = (repeat.count - 1 - ahead) / period;
                if times > 1 {
                    folding.active = Some(self.begin_fold(group, leader, state, period, times));
                }
            }
        }
        self.folds.insert(id, folding);
    }

    fn begin_fold(
        &mut self,
        group: &Group,
        leader: usize,
        state: Vec<i128>,
        period: u32,
        times: u32,
    ) -> Active {
        for &actor in &group.actors {
            self.actors[actor].weight *= u64::from(times);
        }
        let here = &self.actors[leader];
        let pass = here.frames.last().expect("it is in a repeat").pass;
        Active {
            state,
            until: pass + period,
            period,
            times,
            begin: here.clock,
            transfers: self.transfers(),
        }
    }

    fn transfers(&self) -> Vec<u64> {
        let streams = self.streams.iter().flat_map(|class| class.values());
        streams.map(|stream| stream.transfers).collect()
    }

    /// The period is over: the others are as if they had been walked.
    fn move_on(&mut self, group: &Group, leader: usize, active: &Active) {
        let others = active.times - 1;
        let rest = (self.actors[leader].clock - active.begin) * u64::from(others);
        let depth = self.actors[leader].frames.len() - 1;
        for &actor in &group.actors {
            let here = &mut self.actors[actor];
            here.weight /= u64::from(active.times);
            here.clock += rest;
            here.arrived += rest;
            here.frames[depth].pass += active.period * others;
            if let Some(task) = &mut self.tasks[actor] {
                task.end += rest;
                task.moves_from += rest;
            }
        }
        let linked = self.linked;
        let owner = |key: Key| match key {
            Key::Step(actor, _) => actor,
            Key::Buffer(class, stream) => buffer_owner(linked, class, stream),
        };
        let inside = |actor: usize| group.actors.binary_search(&actor).is_ok();
        self.flows.shift(rest, |key| inside(owner(key)));
        self.queue.shift(rest, |event| match event {
            Event::Move(actor) => inside(actor),
            Event::Fill(class, stream) => inside(buffer_owner(linked, class, stream)),
            Event::End { key, .. } => inside(owner(key)),
        });
        let now = self.transfers();
        let mut passed = now
            .iter()
            .zip(&active.transfers)
            .map(|(now, before)| now > before);
        for (class, tallies) in self.streams.iter_mut().enumerate() {
            for (stream, buffer) in linked.schedule.streams.iter() {
                let passed = passed.next().expect("one for each class and stream");
                // The transfers of others don't recur with the group; where they could meet it, all
                // others wait.
                let mine = || !group.exclusive || inside(buffer_owner(linked, class, stream));
                if passed && buffer.buffer.is_some() && mine() {
                    tallies[stream].shift(rest);
                }
            }
        }
    }

    /// Whether nobody outside can interfere with a group, nor the fold with that of a repeat around.
    fn may_fold(&self, group: &Group, leader: usize) -> bool {
        // Those who are moved on are ahead of all others. Around them the state is still that of
        // the leader's clock if it is the leader who was moved on.
        let frames = &self.actors[leader].frames;
        let leads_around = frames
            .iter()
            .filter_map(|frame| frame.repeat)
            .all(|number| {
                let repeat = &self.linked.repeats[number as usize];
                let group = repeat.group_of[leader].expect("it takes part");
                repeat.groups[group as usize].actors[0] == leader
            });
        if !leads_around {
            return false;
        }
        let inside = |actor: usize| group.actors.binary_search(&actor).is_ok();
        let waits =
            |actor: usize| matches!(self.actors[actor].status, Status::Meeting | Status::Done);
        group.exclusive
            || ((0..self.actors.len()).all(|actor| inside(actor) || waits(actor))
                && self.flows.iter().all(|(key, _)| inside(self.owner(key)))
                && self.queue.iter().all(|(_, event)| match event {
                    Event::Move(actor) => inside(actor),
                    Event::Fill(class, stream) => inside(buffer_owner(self.linked, class, stream)),
                    Event::End { key, .. } => inside(self.owner(key)),
                }))
    }

    fn owner(&self, key: Key) -> usize {
        match key {
            Key::Step(actor, _) => actor,
            Key::Buffer(class, stream) => buffer_owner(self.linked, class, stream),
        }
    }

    /// What a further pass depends on; `None` unless all are in the same passage through the repeat.
    fn state(&self, group: &Group, number: u32) -> Option<Vec<i128>> {
        let leader = &self.actors[group.actors[0]];
        let now = leader.clock;
        let depth = leader.frames.len() - 1;
        let since = |time: Cycles| i128::from(time.0) - i128::from(now.0);
        // Positions in the program: those in the lists of the IPUs differ.
        let outer = |frame: &super::Frame| (frame.block, frame.pass, frame.number);
        let mut state = Vec::new();
        for &actor in &group.actors {
            let here = &self.actors[actor];
            let own = here.frames.get(depth)?;
            let same = here.frames[..depth]
                .iter()
                .map(outer)
                .eq(leader.frames[..depth].iter().map(outer));
            if !same || own.repeat != Some(number) || own.number != leader.frames[depth].number {
                return None;
            }
            state.push(i128::from(own.pass) - i128::from(leader.frames[depth].pass));
            state.push(own.next as i128);
            for frame in &here.frames[depth + 1..] {
                state.extend([
                    i128::from(frame.block),
                    frame.next as i128,
                    i128::from(frame.pass),
                ]);
            }
            let section = here.section.map_or(-1, |section| i128::from(section.0));
            state.extend([-1, section, here.status as i128, since(here.clock)]);
            if let Some(task) = &self.tasks[actor] {
                let open = task.open as i128;
                let times = [since(task.moves_from), since(task.end)];
                state.extend([i128::from(task.leaf), open, times[0], times[1]]);
            }
        }
        let inside = |actor: usize| group.actors.binary_search(&actor).is_ok();
        for (key, flow) in self
            .flows
            .iter()
            .filter(|&(key, _)| inside(self.owner(key)))
        {
            state.extend(code(key));
            state.extend(flow.state(now));
        }
        let mut events: Vec<[i128; 4]> = Vec::new();
        for (time, event) in self.queue.iter() {
            let (actor, code) = match event {
                Event::Move(actor) => (actor, [0, actor as i128, 0]),
                Event::Fill(class, stream) => (
                    buffer_owner(self.linked, class, stream),
                    [1, class as i128, stream.index() as i128],
                ),
                // The state of the transfer says when it ends.
                Event::End { .. } => continue,
            };
            if inside(actor) {
                events.push([since(time), code[0], code[1], code[2]]);
            }
        }
        events.sort_unstable();
        state.extend(events.into_iter().flatten());
        for (class, buffers) in self.buffers.iter().enumerate() {
            for (stream, buffer) in buffers.iter() {
                let used = self.linked.schedule.streams[stream].buffer.is_some();
                // A stream that others use as well has its buffer at one of them.
                if used && (!group.exclusive || inside(buffer_owner(self.linked, class, stream))) {
                    state.extend([
                        i128::from(buffer.full),
                        i128::from(buffer.held),
                        i128::from(buffer.busy),
                    ]);
                    state.extend(
                        buffer
                            .waiting
                            .iter()
                            .flat_map(|&(actor, position)| [actor as i128, position as i128]),
                    );
                    state.push(-1);
                }
            }
        }
        Some(state)
    }
}

/// The actor beside whose IPU a stream is buffered.
fn buffer_owner(linked: &Linked, class: usize, stream: StreamId) -> usize {
    let buffer = linked.schedule.streams[stream].buffer;
    linked.actor(
        class,
        buffer.expect("a stream that is used has a buffer").ipu,
    )
}

fn code(key: Key) -> [i128; 3] {
    match key {
        Key::Step(actor, position) => [0, actor as i128, position as i128],
        Key::Buffer(class, stream) => [1, class as i128, stream.index() as i128],
    }
}
