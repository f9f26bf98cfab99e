//! The clocks of the IPUs, walked through a schedule by events.
//!
//! An actor is an IPU of a class of replicas. Inside the IPU it needs no events: it runs its steps
//! one after the other until it has to meet others or something moves beyond it. Those who come to
//! a common step wait for the last one. What moves shares links with all else that moves at that
//! time ([`crate::network::flows`]), so that a transfer that begins can put off the end of another.
//!
//! A class stands for replicas that can't be told apart ([`crate::network::partition`]), and a
//! repeat is folded once the state of those who take part recurs ([`fold`]). Neither approximates:
//! a walk of every replica and every pass gives the same cycles.

mod buffer;
mod fold;
mod ledger;
mod local;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use smallvec::SmallVec;

use super::Mode;
use super::events::{Event, Key, Queue};
use super::linked::{BlockId, Item, Linked};
use super::schedule::{Moving, Scope};
use super::timeline::{Activity, ConstantUsage, Join, Tally, Timeline, WaitCause};
use crate::ids::IdVec;
use crate::network::RouteId;
use crate::network::flows::Flows;
use crate::program::{FunctionId, SectionId, SourceId, StreamId};
use crate::trace::{Span, SpanKind};
use crate::units::{Bytes, Cycles};
use buffer::{BufferState, StreamTally};
use fold::Folding;
use ledger::{Account, Ledger};
use local::{Effect, LocalCalls};

/// Items and events from one question whether to go on to the next: milliseconds.
const STEPS_PER_QUESTION: u32 = 1 << 14;

/// Walks a schedule once and adds everything up; nothing if `goes_on` says no.
pub(super) fn walk(
    linked: &Linked,
    mode: Mode,
    trace_depth: u32,
    goes_on: &mut dyn FnMut() -> bool,
) -> Option<Timeline> {
    let mut walker = Walker::new(linked, mode, trace_depth);
    walker.ready = (0..linked.n_actors()).collect();
    while walker.turn() {
        if walker.steps >= STEPS_PER_QUESTION {
            walker.steps = 0;
            if !goes_on() {
                return None;
            }
        }
    }
    Some(walker.finish())
}

/// Where an actor is in a list of items.
#[derive(Clone, Debug)]
struct Frame {
    block: BlockId,
    /// Position of the next item.
    next: usize,
    /// The repeat, and passes that are over.
    repeat: Option<u32>,
    pass: u32,
    /// What a span of it shows.
    begin: Cycles,
    number: u32,
    call: Option<FunctionId>,
    /// What its actor had spent when it came here.
    before: Tally,
    /// Whether spans of its items are recorded.
    records: bool,
}

/// What an actor waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    /// Nothing.
    Ready,
    /// Others at a step.
    Meeting,
    /// What a step moves.
    Moving,
    /// It is through.
    Done,
}

#[derive(Clone, Debug)]
struct Actor {
    frames: Vec<Frame>,
    clock: Cycles,
    /// How often what it does now happens.
    weight: u64,
    status: Status,
    section: Option<SectionId>,
    /// When it came to its step, and the step's position in the program.
    arrived: Cycles,
    number: u32,
}

/// A step that waits for what it moves.
#[derive(Clone, Debug)]
struct Task {
    leaf: u32,
    class: usize,
    actors: SmallVec<[usize; 4]>,
    /// Transfers that aren't through.
    open: usize,
    /// When the last of them began to move.
    moves_from: Cycles,
    /// When the last byte has arrived, as far as known.
    end: Cycles,
}

struct Walker<'a> {
    linked: &'a Linked,
    /// Items and events since the last question whether to go on.
    steps: u32,
    mode: Mode,
    trace_depth: u32,
    actors: Vec<Actor>,
    ready: BTreeSet<usize>,
    /// Leaders that have begun another pass, by their clocks.
    boundaries: BTreeSet<(Cycles, usize)>,
    /// By leaf and class: how many have come.
    met: Vec<u32>,
    /// By first actor.
    tasks: Vec<Option<Task>>,
    queue: Queue,
    flows: Flows<'a, Key>,
    /// By class of replicas.
    buffers: Vec<IdVec<StreamId, BufferState>>,
    streams: Vec<IdVec<StreamId, StreamTally>>,
    /// By repeat and group.
    folds: BTreeMap<(u32, u32), Folding>,
    ledger: Ledger,
    local: LocalCalls,
}

impl<'a> Walker<'a> {
    fn new(linked: &'a Linked, mode: Mode, trace_depth: u32) -> Self {
        let schedule = &linked.schedule;
        let n_classes = schedule.n_classes as usize;
        let n_actors = linked.n_actors();
        let start = Actor {
            frames: vec![Frame {
                block: linked.main,
                next: 0,
                repeat: None,
                pass: 0,
                begin: Cycles::ZERO,
                number: 0,
                call: None,
                before: Tally::default(),
                records: trace_depth > 0,
            }],
            clock: Cycles::ZERO,
            weight: 1,
            status: Status::Ready,
            section: None,
            arrived: Cycles::ZERO,
            number: 0,
        };
        let mut walker = Self {
            linked,
            steps: 0,
            mode,
            trace_depth,
            actors: vec![start; n_actors],
            ready: BTreeSet::new(),
            boundaries: BTreeSet::new(),
            met: vec![0; linked.leaves.len() * n_classes],
            tasks: vec![None; n_actors],
            queue: Queue::default(),
            flows: Flows::new(&schedule.network),
            buffers: vec![schedule.streams.values().map(BufferState::new).collect(); n_classes],
            streams: vec![
                schedule
                    .streams
                    .ids()
                    .map(|_| StreamTally::default())
                    .collect();
                n_classes
            ],
            folds: BTreeMap::new(),
            ledger: Ledger::new(linked),
            local: LocalCalls::new(linked),
        };
        if schedule.start > Cycles::ZERO {
            for actor in 0..n_actors {
                walker.wait_for_start(actor);
            }
        }
        walker
    }

    /// Nothing runs before the host has started it; that belongs to no step.
    fn wait_for_start(&mut self, actor: usize) {
        let cycles = self.linked.schedule.start;
        self.actors[actor].clock = cycles;
        self.ledger.start(self.account(actor), cycles);
    }

    /// Who an actor is to the ledger.
    fn account(&self, actor: usize) -> Account {
        let (class, ipu) = self.linked.place(actor);
        let here = &self.actors[actor];
        Account {
            actor,
            class,
            ipu,
            section: here.section,
            weight: here.weight,
        }
    }

    /// Whoever can go on does; then the next event. Whether there was anything.
    fn turn(&mut self) -> bool {
        self.steps += 1;
        if let Some(actor) = self.ready.pop_first() {
            self.go_on(actor);
            return true;
        }
        // Nobody can go on and nothing is left to happen before: the state is the same whatever
        // the order was.
        if let Some(&(clock, actor)) = self.boundaries.first()
            && self.queue.next().is_none_or(|next| next > clock)
        {
            self.boundaries.pop_first();
            self.boundary(actor);
            self.ready.insert(actor);
            return true;
        }
        match self.queue.pop() {
            Some((now, Event::Move(actor))) => self.begin_moving(actor, now),
            Some((now, Event::Fill(class, stream))) => self.begin_fill(class, stream, now),
            Some((now, Event::End { key, stamp })) => {
                if self.flows.get(key).is_some_and(|flow| flow.stamp == stamp) {
                    self.end_flow(key, now);
                }
            }
            None => return false,
        }
        true
    }

    /// Runs an actor until it has to wait.
    fn go_on(&mut self, actor: usize) {
        let (_, ipu) = self.linked.place(actor);
        loop {
            if self.steps >= STEPS_PER_QUESTION {
                // The same state as before: it goes on with the next turn.
                self.ready.insert(actor);
                return;
            }
            self.steps += 1;
            let here = &mut self.actors[actor];
            let Some(frame) = here.frames.last_mut() else {
                here.status = Status::Done;
                return;
            };
            let items = &self.linked.blocks[frame.block as usize][ipu.0 as usize];
            if let Some(&(number, item)) = items.get(frame.next) {
                frame.next += 1;
                let goes_on = match item {
                    Item::Leaf(leaf) => self.leaf(actor, leaf, number),
                    Item::Repeat(repeat) => {
                        if !self.repeat_alone(actor, number, repeat) {
                            let block = self.linked.repeats[repeat as usize].block;
                            self.enter(actor, number, block, Some(repeat), None);
                        }
                        true
                    }
                    Item::Call(function, block) => {
                        if !self.call_alone(actor, number, (function, block)) {
                            self.enter(actor, number, block, None, Some(function));
                        }
                        true
                    }
                    Item::Section(section) => {
                        here.section = Some(section);
                        true
                    }
                };
                if !goes_on {
                    return;
                }
            } else if !self.next_pass(actor) {
                return;
            }
        }
    }

    /// All passes of a repeat at once, if they concern the actor alone; whether they do.
    fn repeat_alone(&mut self, actor: usize, number: u32, repeat: u32) -> bool {
        let here = &self.actors[actor];
        let outer = here.frames.last().is_some_and(|frame| frame.records);
        if self.mode == Mode::Unfolded || outer && (here.frames.len() as u32) < self.trace_depth {
            return false;
        }
        let (_, ipu) = self.linked.place(actor);
        let effect = self.local.repeat(self.linked, (repeat, ipu), here.section);
        let Some(effect) = effect else {
            return false;
        };
        let begin = self.add_effect(actor, &effect);
        let count = self.linked.repeats[repeat as usize].count;
        self.record(actor, number, SpanKind::Repeat { count }, begin);
        true
    }

    /// A call at once, if it concerns the actor alone; whether it does.
    fn call_alone(
        &mut self,
        actor: usize,
        number: u32,
        (function, block): (FunctionId, BlockId),
    ) -> bool {
        if self.mode == Mode::Unfolded {
            return false;
        }
        let (_, ipu) = self.linked.place(actor);
        let section = self.actors[actor].section;
        let Some(effect) = self.local.call(self.linked, (block, ipu), section) else {
            return false;
        };
        let before = self.ledger.tally(actor);
        let begin = self.add_effect(actor, &effect);
        self.ledger.call(self.account(actor), function, &before);
        self.record(actor, number, SpanKind::Call(function), begin);
        true
    }

    /// Does what concerns an actor alone; its clock before.
    fn add_effect(&mut self, actor: usize, effect: &Effect) -> Cycles {
        self.ledger.local(self.account(actor), effect);
        let here = &mut self.actors[actor];
        let begin = here.clock;
        here.clock += effect.tally.spent.total();
        here.section = effect.section;
        begin
    }

    fn enter(
        &mut self,
        actor: usize,
        number: u32,
        block: BlockId,
        repeat: Option<u32>,
        call: Option<FunctionId>,
    ) {
        let here = &mut self.actors[actor];
        let depth = here.frames.len() as u32;
        let outer = here.frames.last().is_some_and(|frame| frame.records);
        here.frames.push(Frame {
            block,
            next: 0,
            repeat,
            pass: 0,
            begin: here.clock,
            number,
            call,
            before: self.ledger.tally(actor),
            // Spans of a function's steps would be the same at every call.
            records: outer && call.is_none() && depth < self.trace_depth,
        });
        if let Some(repeat) = repeat {
            self.enter_repeat(actor, repeat);
        }
    }

    /// At the end of a list: the next pass, or back to where it came from. Whether to go on.
    fn next_pass(&mut self, actor: usize) -> bool {
        let here = &mut self.actors[actor];
        let frame = here.frames.last_mut().expect("it is in a list");
        if let Some(repeat) = frame.repeat {
            let repeat = &self.linked.repeats[repeat as usize];
            if frame.pass + 1 < repeat.count {
                frame.pass += 1;
                frame.next = 0;
                frame.records = false;
                let group = repeat.group_of[actor].expect("it takes part") as usize;
                let leads = repeat.groups[group].actors[0] == actor;
                if leads && self.mode == Mode::Folded {
                    self.boundaries.insert((here.clock, actor));
                    return false;
                }
                return true;
            }
        }
        let frame = here.frames.pop().expect("it is in a list");
        let kind = match (frame.repeat, frame.call) {
            (Some(repeat), _) => SpanKind::Repeat {
                count: self.linked.repeats[repeat as usize].count,
            },
            (None, Some(function)) => {
                self.ledger
                    .call(self.account(actor), function, &frame.before);
                SpanKind::Call(function)
            }
            (None, None) => return true,
        };
        self.record(actor, frame.number, kind, frame.begin);
        true
    }

    /// Comes to a step. Whether it is through already.
    fn leaf(&mut self, actor: usize, number: u32, position: u32) -> bool {
        let leaf = &self.linked.leaves[number as usize];
        let (class, _) = self.linked.place(actor);
        let here = &mut self.actors[actor];
        here.arrived = here.clock;
        here.number = position;
        if leaf.ipus.len() == 1 && leaf.scope == Scope::Replica {
            self.begin(number, class, &[actor]);
            return leaf.moving.is_empty();
        }
        here.status = Status::Meeting;
        let meeting = match leaf.scope {
            Scope::Replica => class,
            Scope::AllReplicas => 0,
        };
        let come =
            &mut self.met[number as usize * self.linked.schedule.n_classes as usize + meeting];
        *come += 1;
        let all = self.linked.meet(leaf, class);
        if *come as usize == all.len() {
            *come = 0;
            self.begin(number, class, &all);
            if leaf.moving.is_empty() {
                self.ready.extend(all);
            }
        }
        false
    }

    /// All have come: what the step takes before anything moves.
    fn begin(&mut self, number: u32, class: usize, actors: &[usize]) {
        let leaf = &self.linked.leaves[number as usize];
        let clocks = actors.iter().map(|&actor| {
            let (_, ipu) = self.linked.place(actor);
            (self.actors[actor].clock, Reverse(ipu), actor)
        });
        let (begin, Reverse(last), latest) = clocks.max().expect("a step has an IPU");
        self.ledger.meet(actors, latest);
        if leaf.ipus.len() > 1 {
            let account = self.account(actors[0]);
            let join = Join {
                section: account.section,
                source: leaf.source,
                last,
            };
            self.ledger.join(account, leaf.scope, join);
        }
        // What isn't fetched ahead waits for another answer; streams of a step do so together.
        let ahead = |stream: StreamId| self.linked.schedule.streams[stream].depth > 0;
        let mut streams = leaf.moving.iter().filter_map(|moving| moving.stream);
        let fetches = u64::from(streams.any(|(stream, _)| !ahead(stream)));
        let mut end = begin;
        for &actor in actors {
            let waited = begin - self.actors[actor].clock;
            self.wait(actor, leaf.source, WaitCause::Ipu(last), waited);
            for &(activity, cycles) in &leaf.spends {
                self.spend(actor, leaf.source, activity, cycles);
            }
            self.ledger.step(self.account(actor), leaf, fetches);
            let here = &mut self.actors[actor];
            here.status = if leaf.moving.is_empty() {
                Status::Ready
            } else {
                Status::Moving
            };
            end = here.clock;
        }
        self.tally(number, class, begin, actors[0]);
        if leaf.moving.is_empty() {
            for &actor in actors {
                self.record_step(actor, leaf.source);
            }
            return;
        }
        self.tasks[actors[0]] = Some(Task {
            leaf: number,
            class,
            actors: actors.iter().copied().collect(),
            open: leaf.moving.len(),
            moves_from: end,
            end,
        });
        self.queue.push(end, Event::Move(actors[0]));
    }

    /// Counts what a step moves.
    fn tally(&mut self, number: u32, class: usize, begin: Cycles, actor: usize) {
        let leaf = &self.linked.leaves[number as usize];
        let account = self.account(actor);
        self.ledger.moved(account, leaf);
        for moving in &leaf.moving {
            let route = self.linked.route(class, moving.ends);
            self.ledger.carry(account, route, moving.bytes);
            if let Some((stream, _)) = moving.stream {
                self.streams[class][stream].begin(begin, account.weight);
                if let Some(buffer) = self.linked.schedule.streams[stream].buffer {
                    let route = self.linked.route(class, buffer.ends);
                    self.ledger.carry(account, route, buffer.bytes);
                }
            }
        }
    }

    /// Idle cycles, with their reason.
    fn wait(&mut self, actor: usize, source: SourceId, on: WaitCause, cycles: Cycles) {
        if cycles == Cycles::ZERO {
            return;
        }
        self.spend(actor, source, Activity::Idle, cycles);
        self.ledger.wait(self.account(actor), on, cycles);
    }

    fn spend(&mut self, actor: usize, source: SourceId, activity: Activity, cycles: Cycles) {
        self.actors[actor].clock += cycles;
        self.ledger
            .spend(self.account(actor), source, activity, cycles);
    }

    /// What a step moves begins to move, as far as buffers allow.
    fn begin_moving(&mut self, actor: usize, now: Cycles) {
        let task = self.tasks[actor].as_ref().expect("it has begun");
        let (class, leaf) = (task.class, &self.linked.leaves[task.leaf as usize]);
        for (position, moving) in leaf.moving.iter().enumerate() {
            match moving.stream {
                None => self.begin_part(actor, position, now),
                Some((stream, direction)) => {
                    self.ask_buffer(class, stream, direction, (actor, position), now)
                }
            }
        }
    }

    /// One of the things that a step moves begins to move.
    fn begin_part(&mut self, actor: usize, position: usize, now: Cycles) {
        let (moving, route) = self.part(actor, position);
        self.tasks[actor].as_mut().expect("it moves").moves_from = now;
        match route {
            Some(route) => self.begin_flow(Key::Step(actor, position), route, moving.bytes, now),
            None => self.end_part(actor, position, now),
        }
    }

    fn part(&self, actor: usize, position: usize) -> (Moving, Option<RouteId>) {
        let task = self.tasks[actor].as_ref().expect("it moves");
        let moving = self.linked.leaves[task.leaf as usize].moving[position];
        (moving, self.linked.route(task.class, moving.ends))
    }

    fn begin_flow(&mut self, key: Key, route: RouteId, bytes: Bytes, now: Cycles) {
        let changed = self.flows.begin(key, route, bytes, now);
        self.expect_ends(&changed);
    }

    fn end_flow(&mut self, key: Key, now: Cycles) {
        let changed = self.flows.end(key, now);
        self.expect_ends(&changed);
        match key {
            Key::Step(actor, position) => self.end_part(actor, position, now),
            Key::Buffer(class, stream) => self.end_buffering(class, stream, now),
        }
    }

    fn expect_ends(&mut self, changed: &[Key]) {
        for &key in changed {
            let flow = self.flows.get(key).expect("it moves");
            let event = Event::End {
                key,
                stamp: flow.stamp,
            };
            self.queue.push(flow.end(), event);
        }
    }

    /// One of the things that a step moves is through.
    fn end_part(&mut self, actor: usize, position: usize, now: Cycles) {
        let (moving, route) = self.part(actor, position);
        let latency = route.map_or(Cycles::ZERO, |route| {
            self.linked.schedule.network.routes[route].latency.total
        });
        let task = self.tasks[actor].as_mut().expect("it moves");
        task.end = task.end.max(now + latency);
        task.open -= 1;
        let (class, is_last) = (task.class, task.open == 0);
        if let Some((stream, direction)) = moving.stream {
            self.leave_buffer(class, stream, direction, now);
        }
        if is_last {
            let task = self.tasks[actor].take().expect("it moves");
            self.end_task(&task);
        }
    }

    fn end_task(&mut self, task: &Task) {
        let leaf = &self.linked.leaves[task.leaf as usize];
        for (stream, direction) in leaf.moving.iter().filter_map(|moving| moving.stream) {
            self.delivered(task.class, stream, direction, task.end);
        }
        let alone = self.alone(task);
        for &actor in &task.actors {
            // What isn't there yet, or what others use.
            let late = task.moves_from - self.actors[actor].clock;
            self.wait(actor, leaf.source, WaitCause::Host, late);
            let rest = task.end - self.actors[actor].clock;
            self.spend(actor, leaf.source, leaf.waiting, alone.min(rest));
            let shared = rest.saturating_sub(alone);
            self.wait(actor, leaf.source, WaitCause::StreamingMemory, shared);
            let paid = self.usage_of_moving(task, rest);
            self.ledger.pay(self.account(actor), &paid);
            self.actors[actor].status = Status::Ready;
            self.record_step(actor, leaf.source);
            self.ready.insert(actor);
        }
    }

    /// What the `cycles` in which a step moved something are paid for.
    fn usage_of_moving(&self, task: &Task, cycles: Cycles) -> ConstantUsage {
        let leaf = &self.linked.leaves[task.leaf as usize];
        match leaf.waiting {
            Activity::StreamingMemory => ConstantUsage {
                streaming: cycles,
                ..ConstantUsage::default()
            },
            Activity::IpuCopy => {
                let routes = &self.linked.schedule.network.routes;
                let moving = leaf.moving.iter();
                let used = moving.filter_map(|moving| self.linked.route(task.class, moving.ends));
                let latencies = used.map(|route| routes[route].latency);
                let latency = latencies.max_by_key(|latency| latency.total);
                let latency = latency.unwrap_or_default();
                ConstantUsage {
                    latency: latency.link,
                    latency_hops: latency.hops,
                    gateways: latency.gateways.into(),
                    links: cycles.saturating_sub(latency.total),
                    ..ConstantUsage::default()
                }
            }
            _ => ConstantUsage::default(),
        }
    }

    /// What loads and stores take with streaming memory to themselves. Other transfers have no such
    /// time: that theirs takes longer when links are shared is their own.
    fn alone(&self, task: &Task) -> Cycles {
        let leaf = &self.linked.leaves[task.leaf as usize];
        if leaf.waiting != Activity::StreamingMemory {
            return Cycles(u64::MAX);
        }
        let routes = leaf
            .moving
            .iter()
            .filter_map(|moving| self.linked.route(task.class, moving.ends));
        let limits = routes.map(|route| self.linked.schedule.network.routes[route].limit);
        let bytes = leaf.moving.iter().map(|moving| moving.bytes).sum();
        limits
            .min()
            .map_or(Cycles::ZERO, |limit| limit.cycles(bytes))
    }

    fn record_step(&mut self, actor: usize, source: SourceId) {
        let here = &self.actors[actor];
        self.record(actor, here.number, SpanKind::Step(source), here.arrived);
    }

    fn record(&mut self, actor: usize, number: u32, kind: SpanKind, begin: Cycles) {
        let here = &self.actors[actor];
        let records = here.frames.last().is_some_and(|frame| frame.records);
        if records && here.clock > begin {
            let (_, ipu) = self.linked.place(actor);
            let outer = here.frames.iter().skip(1).map(|frame| frame.number);
            let span = Span {
                path: outer.chain([number]).collect(),
                kind,
                ipu,
                begin,
                end: here.clock,
            };
            self.ledger.record(actor, span);
        }
    }

    /// The replicas that are through last stand for the program.
    fn finish(self) -> Timeline {
        assert!(
            self.actors.iter().all(|actor| actor.status == Status::Done),
            "every step has all that it waits for"
        );
        self.flows.check_conserved();
        let n_ipus = self.linked.schedule.n_ipus as usize;
        let ends = self
            .actors
            .chunks(n_ipus.max(1))
            .zip(&self.streams)
            .map(|(actors, streams)| {
                let clocks = actors.iter().map(|actor| actor.clock);
                let streams = streams.values().filter_map(StreamTally::end);
                clocks.chain(streams).max().unwrap_or(Cycles::ZERO)
            });
        let ends: Vec<Cycles> = ends.collect();
        let total = ends.iter().copied().max().unwrap_or(Cycles::ZERO);
        let class = ends.iter().position(|&end| end == total).unwrap_or(0);
        let streams = self.streams[class]
            .values()
            .map(StreamTally::time)
            .collect();
        let clocks: Vec<Cycles> = self.actors.iter().map(|actor| actor.clock).collect();
        self.ledger
            .close(self.linked, class, &clocks, total, streams)
    }
}
