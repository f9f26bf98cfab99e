//! When values that needn't outlive a step take memory.
//!
//! The steps of a function (and of the program itself) are numbered in order, bodies of
//! repeats included; together they are a [`Routine`]. A value lives from the step that
//! writes it to the last that reads it. A value that enters or leaves a repeat, or is
//! carried from one pass to the next, lives in all of the repeat. A call counts as one
//! step with the accesses of its callee; a value that neither enters nor leaves the
//! call is the callee's business and is counted in its frame, any other value lives
//! during the whole call and is counted in the caller's. (A variable that one caller
//! counts during a call is counted by all of them, never twice.)
//!
//! A value that is read before anything wrote it must come from an earlier run and is
//! [always live](Liveness::always).
//!
//! ```text
//! position      0    1    2    3    4
//! step          w a  w b  r a  call r b       a: 0..=2   b: 1..=4
//! callee                       w c, r c       c: in the callee's frame
//! ```

use std::collections::{BTreeMap, BTreeSet};

use super::access::{Access, Accesses, accesses};
use crate::ids::{Id, IdVec};
use crate::program::{FunctionId, Program, SourceId, Step, VarId};

/// A step of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RoutineStep {
    /// A step with its line of the profile.
    Step(SourceId),
    /// A call.
    Call(FunctionId),
}

/// A time in which a variable takes memory; both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Interval {
    pub(super) begin: u32,
    pub(super) end: u32,
    pub(super) var: VarId,
}

/// The steps of a function or of the program, and what lives during them.
#[derive(Clone, Debug, Default)]
pub(super) struct Routine {
    pub(super) steps: Vec<RoutineStep>,
    /// What is counted here, in order of begin.
    pub(super) live: Vec<Interval>,
}

/// When every variable takes memory.
#[derive(Clone, Debug)]
pub(super) struct Liveness {
    pub(super) functions: IdVec<FunctionId, Routine>,
    pub(super) main: Routine,
    /// Variables whose values outlive the program's steps, whatever their kind.
    pub(super) always: BTreeSet<VarId>,
    /// Functions, callees first.
    pub(super) order: Vec<FunctionId>,
}

impl Liveness {
    /// The frame of a function, or of the program itself.
    pub(super) fn frame(&self, function: Option<FunctionId>) -> &Routine {
        match function {
            None => &self.main,
            Some(id) => &self.functions[id],
        }
    }
}

/// When the variables of `program` take memory.
pub(super) fn analyse(program: &Program) -> Liveness {
    let order = callees_first(program);
    let mut users: IdVec<VarId, u32> = program.vars.ids().map(|_| 0).collect();
    let mut sketches: IdVec<FunctionId, Sketch> = program
        .functions
        .values()
        .map(|_| Sketch::default())
        .collect();
    let kinds = program
        .vars
        .iter()
        .filter(|(_, var)| var.kind.is_always_live());
    let mut always: BTreeSet<VarId> = kinds.map(|(id, _)| id).collect();

    for &id in &order {
        sketches[id] = Sketch::new(program, &program.functions[id].steps, &always);
    }
    let mut main = Sketch::new(program, &program.steps, &always);
    for sketch in sketches.values().chain([&main]) {
        for &var in sketch.events.keys() {
            users[var] += 1;
        }
    }
    for &id in &order {
        let mut sketch = std::mem::take(&mut sketches[id]);
        sketch.add_calls(&sketches);
        sketch.summarise(&users);
        sketches[id] = sketch;
    }
    main.add_calls(&sketches);

    let main_vars: BTreeSet<VarId> = main.events.keys().copied().collect();
    let mut frames = Frames {
        functions: program
            .functions
            .values()
            .map(|_| Routine::default())
            .collect(),
        main: Routine::default(),
        delegated: program.functions.values().map(|_| Vec::new()).collect(),
        held: program
            .functions
            .values()
            .map(|_| BTreeSet::new())
            .collect(),
    };
    frames.add(None, main, &main_vars, Some(&mut always));
    for &id in order.iter().rev() {
        let sketch = std::mem::take(&mut sketches[id]);
        let vars = frames.counted_by(id, &sketch);
        frames.add(Some(id), sketch, &vars, None);
    }
    frames.sort();
    Liveness {
        functions: frames.functions,
        main: frames.main,
        always,
        order,
    }
}

/// Frames on the way from callers to callees.
struct Frames {
    functions: IdVec<FunctionId, Routine>,
    main: Routine,
    /// Values that a callee has to count: the variable, and the call.
    delegated: IdVec<FunctionId, Vec<Delegated>>,
    /// Variables that are counted by some caller during a call.
    held: IdVec<FunctionId, BTreeSet<VarId>>,
}

/// A value that neither enters nor leaves a call.
#[derive(Clone, Copy, Debug)]
struct Delegated {
    var: VarId,
    caller: Option<FunctionId>,
    at: u32,
}

impl Frames {
    /// What a function counts, all its callers being known: its private variables, and what
    /// every caller leaves to it. What one caller counts, the others count as well.
    fn counted_by(&mut self, id: FunctionId, sketch: &Sketch) -> BTreeSet<VarId> {
        let mut vars = sketch.private.clone();
        for Delegated { var, caller, at } in std::mem::take(&mut self.delegated[id]) {
            if !self.held[id].contains(&var) {
                vars.insert(var);
                continue;
            }
            let frame = match caller {
                Some(caller) => &mut self.functions[caller],
                None => &mut self.main,
            };
            let (begin, end) = (at, at);
            frame.live.push(Interval { begin, end, var });
        }
        vars
    }

    /// Adds the frame of a function, or of the program, which counts `vars`.
    ///
    /// With `always`, values from before the frame are put there.
    fn add(
        &mut self,
        caller: Option<FunctionId>,
        sketch: Sketch,
        vars: &BTreeSet<VarId>,
        mut always: Option<&mut BTreeSet<VarId>>,
    ) {
        let mut live = Vec::new();
        for (&var, events) in &sketch.events {
            if let Some(always) = always.as_deref_mut()
                && events[0].access.reads
            {
                always.insert(var);
            }
            let always = always.as_ref().is_some_and(|always| always.contains(&var));
            let counts = vars.contains(&var) && !always;
            let intervals = if counts {
                sketch.intervals(events)
            } else {
                Vec::new()
            };
            let left: Vec<Event> = intervals
                .iter()
                .filter_map(|&(begin, end)| call_alone(events, begin, end))
                .collect();
            for event in events {
                let Some(callee) = event.callee else { continue };
                let at = event.at;
                if left.iter().any(|event| event.at == at) {
                    self.delegated[callee].push(Delegated { var, caller, at });
                } else {
                    self.held[callee].insert(var);
                }
            }
            let alone = |begin| left.iter().any(|event| event.at == begin);
            let own = intervals.into_iter().filter(|&(begin, _)| !alone(begin));
            live.extend(own.map(|(begin, end)| Interval { begin, end, var }));
        }
        let steps = sketch.steps;
        let frame = Routine { steps, live };
        match caller {
            Some(id) => self.functions[id] = frame,
            None => self.main = frame,
        }
    }

    fn sort(&mut self) {
        for frame in self.functions.values_mut().chain([&mut self.main]) {
            frame.live.sort_unstable();
        }
    }
}

/// All functions, each after those that it calls.
fn callees_first(program: &Program) -> Vec<FunctionId> {
    fn visit(program: &Program, steps: &[Step], state: &mut Visit) {
        for step in steps {
            match step {
                Step::Repeat { body, .. } => visit(program, body, state),
                Step::Call(id) if !state.seen[id.index()] => {
                    state.seen[id.index()] = true;
                    visit(program, &program.functions[*id].steps, state);
                    state.order.push(*id);
                }
                Step::Call(_)
                | Step::Section(_)
                | Step::Compute(_)
                | Step::Exchange(_)
                | Step::IpuCopies { .. }
                | Step::Transfers { .. }
                | Step::Collective(_) => {}
            }
        }
    }
    struct Visit {
        seen: Vec<bool>,
        order: Vec<FunctionId>,
    }
    let mut state = Visit {
        seen: vec![false; program.functions.len()],
        order: Vec::new(),
    };
    visit(program, &program.steps, &mut state);
    state.order
}

/// What a step, numbered `at`, does to one variable.
#[derive(Clone, Copy, Debug)]
struct Event {
    at: u32,
    access: Access,
    /// If the step is a call.
    callee: Option<FunctionId>,
}

/// A frame before it is known what it has to count.
#[derive(Clone, Debug, Default)]
struct Sketch {
    steps: Vec<RoutineStep>,
    /// First and last step of every repeat, inner ones first.
    repeats: Vec<(u32, u32)>,
    /// By variable, in order.
    events: BTreeMap<VarId, Vec<Event>>,
    /// What a call does to variables that callers have to know of.
    summary: Accesses,
    /// Variables that no caller has to know of.
    private: BTreeSet<VarId>,
}

impl Sketch {
    fn new(program: &Program, steps: &[Step], always: &BTreeSet<VarId>) -> Self {
        let mut sketch = Self::default();
        sketch.add_steps(program, steps, always);
        sketch
    }

    fn add_steps(&mut self, program: &Program, steps: &[Step], always: &BTreeSet<VarId>) {
        for step in steps {
            let at = self.steps.len() as u32;
            match step {
                Step::Repeat { count: 0, .. } | Step::Section(_) => {}
                Step::Repeat { body, .. } => {
                    self.add_steps(program, body, always);
                    let end = self.steps.len() as u32;
                    if end > at {
                        self.repeats.push((at, end - 1));
                    }
                }
                Step::Call(id) => self.steps.push(RoutineStep::Call(*id)),
                Step::Compute(_)
                | Step::Exchange(_)
                | Step::IpuCopies { .. }
                | Step::Transfers { .. }
                | Step::Collective(_) => {
                    for (var, access) in accesses(program, step) {
                        if !always.contains(&var) {
                            self.add_event(var, at, access, None);
                        }
                    }
                    self.steps.push(RoutineStep::Step(
                        step.source().expect("it is no repeat, call or section"),
                    ));
                }
            }
        }
    }

    fn add_event(&mut self, var: VarId, at: u32, access: Access, callee: Option<FunctionId>) {
        let event = Event { at, access, callee };
        self.events.entry(var).or_default().push(event);
    }

    /// Adds what callees do, whose summaries are known.
    fn add_calls(&mut self, callees: &IdVec<FunctionId, Sketch>) {
        for at in 0..self.steps.len() {
            if let RoutineStep::Call(id) = self.steps[at] {
                for (&var, &access) in &callees[id].summary {
                    self.add_event(var, at as u32, access, Some(id));
                }
            }
        }
        for events in self.events.values_mut() {
            events.sort_by_key(|event| event.at);
        }
    }

    /// Sorts variables into private ones and the summary for callers.
    fn summarise(&mut self, users: &IdVec<VarId, u32>) {
        for (&var, events) in &self.events {
            let first = events[0].access;
            let called = events.iter().any(|event| event.callee.is_some());
            if users[var] == 1 && !called && !first.reads {
                self.private.insert(var);
                continue;
            }
            let access = Access {
                reads: first.reads,
                writes: events.iter().any(|event| event.access.writes),
                replaces: first.replaces,
            };
            self.summary.insert(var, access);
        }
    }

    /// First and last steps of the values of a variable, apart from each other.
    fn intervals(&self, events: &[Event]) -> Vec<(u32, u32)> {
        let mut out: Vec<(u32, u32)> = Vec::new();
        for event in events {
            match out.last_mut() {
                Some((_, end)) if !event.access.replaces => *end = event.at,
                _ => out.push((event.at, event.at)),
            }
        }
        for &(first, last) in &self.repeats {
            let begin = events.partition_point(|event| event.at < first);
            let end = events.partition_point(|event| event.at <= last);
            let inside = &events[begin..end];
            if inside.is_empty() {
                continue;
            }
            let carried = inside[0].access.reads && inside.iter().any(|event| event.access.writes);
            if carried {
                out.push((first, last));
            }
            for (begin, end) in &mut out {
                let enters = *begin < first && (first..last).contains(end);
                let leaves = (first + 1..=last).contains(begin) && *end > last;
                if enters {
                    *end = last;
                }
                if leaves {
                    *begin = first;
                }
            }
        }
        joined(out)
    }
}

/// The call that is all that happens from `begin` to `end`, if it needs no older value.
fn call_alone(events: &[Event], begin: u32, end: u32) -> Option<Event> {
    let position = events.partition_point(|event| event.at < begin);
    let event = *events.get(position)?;
    (begin == end && !event.access.reads && event.callee.is_some()).then_some(event)
}

/// Intervals that overlap, joined.
fn joined(mut intervals: Vec<(u32, u32)>) -> Vec<(u32, u32)> {
    intervals.sort_unstable();
    let mut out: Vec<(u32, u32)> = Vec::new();
    for (begin, end) in intervals {
        match out.last_mut() {
            Some((_, last)) if begin <= *last => *last = (*last).max(end),
            _ => out.push((begin, end)),
        }
    }
    out
}
