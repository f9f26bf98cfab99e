//! The clocks of the IPUs, walked through a schedule.
//!
//! A step of one IPU moves that IPU's clock; a step of several first moves them all to
//! the latest. Steps are walked in program order, which gives the same clocks as the
//! order of time because an IPU's clock depends on its own past and on those it waits
//! for. Lines that IPUs share are given to steps in program order, but a step that is
//! ready early takes a gap that is free.
//!
//! Repeats are folded: once the clocks of a group, relative to its earliest, and what
//! is still reserved on its lines are what they were some passes ago, every further
//! such period takes the same time. One period is then walked with its weight
//! multiplied and the clocks are moved on. Nothing is approximated: the unfolded walk
//! gives the same cycles. (Where IPUs outside a group use one of its lines, the group's
//! repeat is not folded, since their steps may fill gaps between its transfers.)

use std::cmp::Reverse;
use std::collections::BTreeMap;

use smallvec::SmallVec;

use super::Mode;
use super::schedule::{Group, Leaf, Occupied, Schedule, Timed};
use super::timeline::{
    Activity, Awaited, Called, IpuTime, Join, Moved, SourceTime, Spent, StreamTime, Tally,
    Timeline, Wait,
};
use crate::ids::{IdVec, IpuId};
use crate::program::{FunctionId, SectionId, SourceId, StreamId};
use crate::trace::{Span, SpanKind, Trace};
use crate::units::Cycles;

/// Walks `schedule` once and adds everything up.
pub(super) fn walk(schedule: &Schedule, mode: Mode, trace_depth: u32) -> Timeline {
    let n_ipus = schedule.n_ipus as usize;
    let mut walker = Walker {
        schedule,
        mode,
        trace_depth,
        path: SmallVec::new(),
        clocks: vec![Cycles::ZERO; n_ipus].into(),
        lines: vec![Reserved::default(); schedule.n_lines as usize],
        weight: 1,
        section: None,
        tallies: vec![Tally::default(); n_ipus].into(),
        sections: vec![vec![Spent::default(); n_ipus].into(); schedule.n_sections].into(),
        functions: vec![vec![Called::default(); n_ipus].into(); schedule.functions.len()].into(),
        waits: BTreeMap::new(),
        joins: BTreeMap::new(),
        sources: vec![vec![SourceTime::default(); n_ipus].into(); schedule.n_sources].into(),
        streams: vec![None; schedule.n_streams].into(),
        moved: Moved::default(),
        trace: Trace::default(),
    };
    let everyone = vec![true; n_ipus];
    walker.steps(&schedule.steps, &everyone);
    walker.finish()
}

/// What is reserved on a line: spans that don't overlap, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Reserved(Vec<(Cycles, Cycles)>);

impl Reserved {
    /// Reserves the first gap of `cycles` that begins at or after `ready`; its begin.
    fn reserve(&mut self, ready: Cycles, cycles: Cycles) -> Cycles {
        let mut begin = ready;
        let mut position = self.0.partition_point(|&(_, end)| end <= ready);
        while let Some(&(taken, end)) = self.0.get(position) {
            if begin + cycles <= taken {
                break;
            }
            begin = begin.max(end);
            position += 1;
        }
        if cycles > Cycles::ZERO {
            self.0.insert(position, (begin, begin + cycles));
        }
        begin
    }

    /// Forgets what is over by `now`, when nobody can be ready earlier.
    fn forget(&mut self, now: Cycles) {
        self.0.retain(|&(_, end)| end > now);
    }

    /// What is reserved from `now` on, relative to it.
    fn after(&self, now: Cycles) -> Vec<(Cycles, Cycles)> {
        self.0
            .iter()
            .filter(|&&(_, end)| end > now)
            .map(|&(begin, end)| (begin.saturating_sub(now), end - now))
            .collect()
    }

    fn shift(&mut self, by: Cycles) {
        for (begin, end) in &mut self.0 {
            *begin += by;
            *end += by;
        }
    }
}

/// What a further pass through a repeat depends on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    clocks: Vec<Cycles>,
    lines: Vec<Vec<(Cycles, Cycles)>>,
    section: Option<SectionId>,
}

struct Walker<'a> {
    schedule: &'a Schedule,
    mode: Mode,
    trace_depth: u32,
    /// Where we are, while spans are recorded.
    path: SmallVec<[u32; 4]>,
    clocks: IdVec<IpuId, Cycles>,
    lines: Vec<Reserved>,
    /// How often what is walked now happens.
    weight: u64,
    /// What is walked now belongs to it.
    section: Option<SectionId>,
    tallies: IdVec<IpuId, Tally>,
    sections: IdVec<SectionId, IdVec<IpuId, Spent>>,
    functions: IdVec<FunctionId, IdVec<IpuId, Called>>,
    waits: BTreeMap<Wait, Cycles>,
    joins: BTreeMap<Join, u64>,
    sources: IdVec<SourceId, IdVec<IpuId, SourceTime>>,
    streams: IdVec<StreamId, Option<StreamTime>>,
    moved: Moved,
    trace: Trace,
}

impl Walker<'_> {
    fn steps(&mut self, steps: &[Timed], among: &[bool]) {
        for (number, step) in steps.iter().enumerate() {
            if self.trace_depth > self.path.len() as u32 {
                self.traced_step(number as u32, step, among);
            } else {
                self.step(step, among);
            }
        }
    }

    fn traced_step(&mut self, number: u32, step: &Timed, among: &[bool]) {
        let kind = match step {
            Timed::Leaf(leaf) => SpanKind::Step(leaf.source),
            Timed::Repeat { count, .. } => SpanKind::Repeat { count: *count },
            Timed::Call(function) => SpanKind::Call(*function),
            Timed::Section(_) => return self.step(step, among),
        };
        let before: Vec<Cycles> = self.clocks.values().copied().collect();
        let position = self.trace.spans.len();
        self.path.push(number);
        self.step(step, among);
        let moved = self.clocks.iter().zip(before);
        let spans = moved
            .filter(|((_, end), begin)| *end > begin)
            .map(|((ipu, &end), begin)| Span {
                path: self.path.clone(),
                kind,
                ipu,
                begin,
                end,
            });
        let spans: Vec<Span> = spans.collect();
        // A repeat stands in front of the steps of its body.
        self.trace.spans.splice(position..position, spans);
        self.path.pop();
    }

    fn step(&mut self, step: &Timed, among: &[bool]) {
        match step {
            Timed::Leaf(leaf) => {
                if among[leaf.ipus[0].0 as usize] {
                    self.leaf(leaf);
                }
            }
            Timed::Repeat {
                count,
                body,
                groups,
            } => {
                for group in groups {
                    let inside = group.ipus.iter().zip(among).any(|(&a, &b)| a && b);
                    if inside {
                        self.repeat(*count, body, group);
                    }
                }
            }
            Timed::Call(function) => self.call(*function, among),
            Timed::Section(section) => self.section = Some(*section),
        }
    }

    fn call(&mut self, function: FunctionId, among: &[bool]) {
        // Spans of a function's steps would be the same at every call.
        let depth = std::mem::take(&mut self.trace_depth);
        let before = self.tallies.clone();
        self.steps(&self.schedule.functions[function], among);
        self.trace_depth = depth;
        for (ipu, before) in before.iter().filter(|(ipu, _)| among[ipu.0 as usize]) {
            let now = &self.tallies[ipu];
            let called = &mut self.functions[function][ipu];
            called.calls += self.weight;
            called.tally.spent.add_all(&now.spent.since(&before.spent));
            called.tally.matmul_flops += now.matmul_flops - before.matmul_flops;
        }
    }

    fn leaf(&mut self, leaf: &Leaf) {
        let clocks = leaf.ipus.iter().map(|&ipu| (self.clocks[ipu], ipu));
        let last = clocks.max_by_key(|&(clock, ipu)| (clock, Reverse(ipu)));
        let (ready, last) = last.expect("a step has an IPU");
        let begin = match leaf.occupies {
            None => ready,
            Some(Occupied { line, lead, cycles }) => {
                self.lines[line.0 as usize].reserve(ready + lead, cycles) - lead
            }
        };
        let takes: Cycles = leaf.spends.iter().map(|&(_, cycles)| cycles).sum();
        let end = begin + leaf.asks + takes;
        let elsewhere = match leaf.spends.first() {
            Some((Activity::StreamingMemory, _)) => Awaited::StreamingMemory,
            _ => Awaited::Host,
        };
        if leaf.ipus.len() > 1 {
            let join = Join {
                section: self.section,
                source: leaf.source,
                last,
            };
            *self.joins.entry(join).or_default() += self.weight;
        }
        for &ipu in &leaf.ipus {
            let others = ready - self.clocks[ipu];
            let line = begin - ready + leaf.asks;
            self.wait(ipu, Awaited::Ipu(last), others);
            self.wait(ipu, elsewhere, line);
            let mut spent = Spent::default();
            spent.add(Activity::Idle, (others + line) * self.weight);
            for &(activity, cycles) in &leaf.spends {
                spent.add(activity, cycles * self.weight);
            }
            let sum = &mut self.sources[leaf.source][ipu];
            sum.spent.add_all(&spent);
            sum.steps += self.weight;
            if let Some(section) = self.section {
                self.sections[section][ipu].add_all(&spent);
            }
            let tally = &mut self.tallies[ipu];
            tally.spent.add_all(&spent);
            tally.matmul_flops += u128::from(leaf.flops.0) * u128::from(self.weight);
            self.clocks[ipu] = end;
        }
        for &(channel, bytes) in &leaf.moves {
            self.moved.add(channel, bytes * self.weight);
        }
        for &stream in &leaf.streams {
            self.transfer(stream, begin, end);
        }
    }

    fn wait(&mut self, ipu: IpuId, on: Awaited, cycles: Cycles) {
        if cycles > Cycles::ZERO {
            let section = self.section;
            let wait = Wait { ipu, section, on };
            *self.waits.entry(wait).or_default() += cycles * self.weight;
        }
    }

    fn transfer(&mut self, stream: StreamId, begin: Cycles, end: Cycles) {
        let time = self.streams[stream].get_or_insert(StreamTime {
            first_begin: begin,
            first_end: end,
            last_begin: begin,
            last_end: end,
            transfers: 0,
        });
        time.last_begin = begin;
        time.last_end = end;
        time.transfers += self.weight;
    }

    /// All passes of one group through a repeat.
    fn repeat(&mut self, count: u32, body: &[Timed], group: &Group) {
        let folds = self.mode == Mode::Folded && group.exclusive;
        let mut seen = BTreeMap::new();
        let mut pass = 0;
        while pass < count {
            let earlier = folds.then(|| seen.insert(self.state(group), pass));
            if let Some(first) = earlier.flatten() {
                let period: u32 = pass - first;
                let times = (count - pass) / period;
                if times > 1 {
                    self.fold(period, times, body, group);
                    seen.clear();
                    pass += period * times;
                    continue;
                }
            }
            self.pass(body, group, pass > 0);
            pass += 1;
        }
    }

    /// Walks one period that stands for `times`.
    fn fold(&mut self, period: u32, times: u32, body: &[Timed], group: &Group) {
        let before = self.earliest(group);
        let transfers: Vec<u64> = self
            .streams
            .values()
            .map(|time| time.map_or(0, |time| time.transfers))
            .collect();
        self.weight *= u64::from(times);
        for _ in 0..period {
            self.pass(body, group, true);
        }
        self.weight /= u64::from(times);
        let rest = (self.earliest(group) - before) * u64::from(times - 1);
        for (clock, _) in self
            .clocks
            .values_mut()
            .zip(&group.ipus)
            .filter(|(_, inside)| **inside)
        {
            *clock += rest;
        }
        for &line in &group.lines {
            self.lines[line.0 as usize].shift(rest);
        }
        for (time, before) in self.streams.values_mut().zip(transfers) {
            if let Some(time) = time.as_mut().filter(|time| time.transfers > before) {
                time.last_begin += rest;
                time.last_end += rest;
            }
        }
    }

    /// One pass; only a first one is recorded.
    fn pass(&mut self, body: &[Timed], group: &Group, quiet: bool) {
        let depth = self.trace_depth;
        if quiet {
            self.trace_depth = 0;
        }
        self.steps(body, &group.ipus);
        self.trace_depth = depth;
        if group.exclusive {
            let now = self.earliest(group);
            for line in &group.lines {
                self.lines[line.0 as usize].forget(now);
            }
        }
    }

    fn members<'a>(&'a self, group: &'a Group) -> impl Iterator<Item = Cycles> + 'a {
        let clocks = self.clocks.values().zip(&group.ipus);
        clocks
            .filter(|(_, inside)| **inside)
            .map(|(&clock, _)| clock)
    }

    fn earliest(&self, group: &Group) -> Cycles {
        self.members(group).min().expect("a group has an IPU")
    }

    fn state(&self, group: &Group) -> State {
        let earliest = self.earliest(group);
        State {
            clocks: self.members(group).map(|clock| clock - earliest).collect(),
            lines: group
                .lines
                .iter()
                .map(|&line| self.lines[line.0 as usize].after(earliest))
                .collect(),
            section: self.section,
        }
    }

    fn finish(mut self) -> Timeline {
        let total = self.clocks.values().copied().max().unwrap_or(Cycles::ZERO);
        self.section = None;
        let mut ipus = IdVec::new();
        for ipu in self.clocks.ids() {
            let finish = self.clocks[ipu];
            self.wait(ipu, Awaited::End, total - finish);
            let mut tally = self.tallies[ipu];
            assert_eq!(
                tally.spent.total(),
                finish,
                "{ipu}: activities don't sum to its clock"
            );
            tally.spent.add(Activity::Idle, total - finish);
            ipus.push(IpuTime { finish, tally });
        }
        Timeline {
            total,
            ipus,
            sources: self.sources,
            sections: self.sections,
            functions: self.functions,
            waits: self.waits,
            joins: self.joins,
            streams: self.streams,
            moved: self.moved,
            trace: self.trace,
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;
    use smallvec::smallvec;

    use super::super::schedule::Line;
    use super::super::timeline::Channel;
    use super::*;
    use crate::program::FunctionId;
    use crate::units::{Bytes, Flops};

    fn leaf(ipus: &[u32], activity: Activity, cycles: u64) -> Timed {
        Timed::Leaf(Leaf {
            source: SourceId(0),
            ipus: ipus.iter().copied().map(IpuId).collect(),
            occupies: None,
            asks: Cycles(0),
            spends: smallvec![(activity, Cycles(cycles))],
            flops: Flops(cycles),
            moves: smallvec![(Channel::IpuLink, Bytes(ipus.len() as u64))],
            streams: SmallVec::new(),
        })
    }

    fn compute(ipu: u32, cycles: u64) -> Timed {
        leaf(&[ipu], Activity::Compute, cycles)
    }

    /// A transfer that occupies `line` for all but 3 cycles before and 2 after; over line 1 the
    /// host is asked first, for 1 of them.
    fn transfer(ipu: u32, line: u32, cycles: u64, stream: u32) -> Timed {
        let Timed::Leaf(mut step) = leaf(&[ipu], Activity::Host, cycles + 5) else {
            unreachable!("made above")
        };
        step.occupies = Some(Occupied {
            line: Line(line),
            lead: Cycles(3),
            cycles: Cycles(cycles),
        });
        if line == 1 {
            step.asks = Cycles(1);
            step.spends[0].1 -= Cycles(1);
        }
        step.streams = smallvec![StreamId(stream)];
        Timed::Leaf(step)
    }

    fn repeat(count: u32, body: Vec<Timed>) -> Timed {
        Timed::Repeat {
            count,
            body,
            groups: Vec::new(),
        }
    }

    fn schedule(n_ipus: u32, steps: Vec<Timed>, functions: Vec<Vec<Timed>>) -> Schedule {
        Schedule {
            n_ipus,
            n_lines: 2,
            n_sources: 1,
            n_streams: 2,
            n_sections: 2,
            functions: functions.into(),
            steps,
        }
        .link()
    }

    /// Clocks and activities in one line for each IPU, after folding, which must not matter.
    #[track_caller]
    fn check(schedule: &Schedule, expected: Expect) -> Timeline {
        let folded = walk(schedule, Mode::Folded, 0);
        assert_eq!(folded, walk(schedule, Mode::Unfolded, 0));
        let mut text = String::new();
        for (ipu, time) in folded.ipus.iter() {
            text += &format!("{ipu}: {}", time.finish);
            for activity in Activity::ALL {
                let cycles = time.tally.spent.on(activity);
                if cycles > Cycles::ZERO {
                    text += &format!(", {activity:?} {}", cycles.0);
                }
            }
            text += "\n";
            assert_eq!(time.tally.spent.total(), folded.total);
        }
        expected.assert_eq(&text);
        folded
    }

    #[test]
    fn ipus_run_side_by_side_until_a_copy_joins_them() {
        let steps = vec![
            compute(0, 100),
            compute(1, 30),
            leaf(&[0, 1], Activity::IpuCopy, 7),
            compute(1, 50),
            compute(2, 20),
        ];
        check(
            &schedule(3, steps, vec![]),
            expect![[r#"
                IPU 0: 107 cycles, Compute 100, IpuCopy 7, Idle 50
                IPU 1: 157 cycles, Compute 80, IpuCopy 7, Idle 70
                IPU 2: 20 cycles, Compute 20, Idle 137
            "#]],
        );
    }

    #[test]
    fn a_pipeline_settles_to_its_slowest_stage() {
        // Copies 0-1 and 1-2 are separate, so IPU 0 runs ahead until IPU 1 holds it back.
        let body = vec![
            compute(0, 10),
            compute(1, 25),
            compute(2, 5),
            leaf(&[0, 1], Activity::IpuCopy, 1),
            leaf(&[1, 2], Activity::IpuCopy, 1),
        ];
        let timeline = check(
            &schedule(3, vec![repeat(1000, body)], vec![]),
            expect![[r#"
                IPU 0: 26999 cycles, Compute 10000, IpuCopy 1000, Idle 16000
                IPU 1: 27000 cycles, Compute 25000, IpuCopy 2000
                IPU 2: 27000 cycles, Compute 5000, IpuCopy 1000, Idle 21000
            "#]],
        );
        assert_eq!(timeline.sources[SourceId(0)][IpuId(1)].steps, 3000);
        assert_eq!(timeline.moved.on(Channel::IpuLink), Bytes(7000));
    }

    #[test]
    fn ipus_that_never_meet_fold_apart() {
        let body = vec![compute(0, 10), compute(1, 25), Timed::Call(FunctionId(0))];
        let inner = vec![repeat(3, vec![compute(1, 2)]), compute(0, 1)];
        check(
            &schedule(2, vec![repeat(1000, body)], vec![inner]),
            expect![[r#"
                IPU 0: 11000 cycles, Compute 11000, Idle 20000
                IPU 1: 31000 cycles, Compute 31000
            "#]],
        );
    }

    #[test]
    fn transfers_take_turns_and_fill_gaps() {
        // IPU 0 takes 3..43, IPU 1 waits for it, IPU 2 comes to a line that is free at 103.
        let steps = vec![
            transfer(0, 0, 40, 0),
            compute(0, 200),
            transfer(0, 0, 10, 0),
            transfer(1, 0, 30, 1),
            compute(2, 100),
            transfer(2, 0, 20, 1),
            transfer(2, 1, 20, 1),
        ];
        let timeline = check(
            &schedule(3, steps, vec![]),
            expect![[r#"
                IPU 0: 260 cycles, Compute 200, Host 60
                IPU 1: 75 cycles, Host 35, Idle 225
                IPU 2: 150 cycles, Compute 100, Host 49, Idle 111
            "#]],
        );
        let stream = timeline.streams[StreamId(0)].unwrap();
        assert_eq!(
            (stream.first_begin, stream.first_end),
            (Cycles(0), Cycles(45))
        );
        assert_eq!(
            (stream.last_begin, stream.last_end),
            (Cycles(245), Cycles(260))
        );
        assert_eq!(
            timeline.latency_first(StreamId(0), StreamId(1)),
            Some(Cycles(75))
        );
    }

    #[test]
    fn the_trace_shows_the_first_pass_and_all_of_a_repeat() {
        let steps = vec![
            compute(0, 5),
            repeat(4, vec![compute(0, 10), Timed::Call(FunctionId(0))]),
        ];
        let schedule = schedule(1, steps, vec![vec![compute(0, 3), compute(0, 4)]]);
        let timeline = walk(&schedule, Mode::Folded, 2);
        let spans: Vec<String> = timeline
            .trace
            .of(IpuId(0))
            .map(|span| {
                format!(
                    "{:?} {:?} {}-{}",
                    &span.path[..],
                    span.kind,
                    span.begin.0,
                    span.end.0
                )
            })
            .collect();
        expect![[r#"
            [0] Step(SourceId(0)) 0-5
            [1] Repeat { count: 4 } 5-73
            [1, 0] Step(SourceId(0)) 5-15
            [1, 1] Call(FunctionId(0)) 15-22"#]]
        .assert_eq(&spans.join("\n"));
    }

    #[test]
    #[should_panic(expected = "calls itself")]
    fn a_function_that_calls_itself_is_refused() {
        let calls = |id| vec![Timed::Call(FunctionId(id))];
        let _ = schedule(1, calls(0), vec![calls(1), calls(0)]);
    }

    /// Steps of four IPUs, two lines and two functions that call no function themselves.
    fn steps(depth: u32, callees: bool) -> BoxedStrategy<Vec<Timed>> {
        let one = prop_oneof![
            4 => (0u32..4, 0u64..40).prop_map(|(ipu, cycles)| compute(ipu, cycles)),
            2 => (0u32..4, 0u32..4, 0u64..9).prop_map(|(a, b, cycles)| {
                let ipus: Vec<u32> = if a == b { vec![a] } else { vec![a, b] };
                leaf(&ipus, Activity::IpuCopy, cycles)
            }),
            1 => (0u32..4, 0u32..2, 0u64..30).prop_map(|(ipu, line, cycles)| {
                transfer(ipu, line, cycles, line)
            }),
            1 => (0u32..2).prop_map(|id| Timed::Section(SectionId(id))),
        ];
        let mut one = one.boxed();
        if callees {
            one = prop_oneof![4 => one, 1 => (0u32..2).prop_map(|id| Timed::Call(FunctionId(id)))]
                .boxed();
        }
        if depth > 0 {
            let body = steps(depth - 1, callees);
            one = prop_oneof![
                3 => one,
                1 => (0u32..40, body).prop_map(|(count, body)| repeat(count, body)),
            ]
            .boxed();
        }
        prop::collection::vec(one, 0..6).boxed()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn folding_changes_nothing(
            main in steps(2, true),
            a in steps(1, false),
            b in steps(1, false),
        ) {
            let schedule = schedule(4, main, vec![a, b]);
            let folded = walk(&schedule, Mode::Folded, 1);
            let unfolded = walk(&schedule, Mode::Unfolded, 1);
            for (ipu, time) in folded.ipus.iter() {
                prop_assert_eq!(time.tally.spent.total(), folded.total);
                let waits = folded.waits.iter().filter(|(wait, _)| wait.ipu == ipu);
                let waited: Cycles = waits.map(|(_, &cycles)| cycles).sum();
                prop_assert_eq!(waited, time.tally.spent.on(Activity::Idle));
                let lines: Cycles = folded.sources.values().map(|line| line[ipu].spent.total()).sum();
                prop_assert_eq!(lines, time.finish);
                // What comes before the first section is in none.
                let sections = folded.sections.values().map(|section| section[ipu].total());
                prop_assert!(sections.sum::<Cycles>() <= time.finish);
            }
            prop_assert_eq!(folded, unfolded);
        }
    }
}
