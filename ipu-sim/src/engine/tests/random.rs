//! Random programs, folded and unfolded.

use proptest::prelude::*;

use super::links::check_links;
use super::*;
use crate::spec::fixtures::machine as shipped;

/// What a random step does, and on which IPUs.
#[derive(Clone, Debug)]
enum Random {
    Fill(u32),
    Spread(u32),
    Copies(Vec<(u32, u32)>),
    Read(u32),
    Late(u32),
    /// Two IPUs, or one, in one step.
    ReadTogether(u32, u32),
    Write(u32),
    Load(u32),
    Store(u32),
    Collective(u32, CollectiveKind),
    Call(bool),
    Section(bool),
    Repeat(u32, Vec<Random>),
}

fn random_steps(depth: u32, calls: bool) -> BoxedStrategy<Vec<Random>> {
    let ipu = 0u32..4;
    let kind = prop_oneof![
        Just(CollectiveKind::AllReduce),
        Just(CollectiveKind::ReduceScatter),
        Just(CollectiveKind::TakeShard),
    ];
    let pairs = prop::collection::vec((ipu.clone(), ipu.clone()), 1..4);
    let leaf = prop_oneof![
        4 => ipu.clone().prop_map(Random::Fill),
        2 => ipu.clone().prop_map(Random::Spread),
        3 => pairs.prop_map(Random::Copies),
        1 => ipu.clone().prop_map(Random::Read),
        1 => ipu.clone().prop_map(Random::Late),
        1 => (ipu.clone(), ipu.clone()).prop_map(|(one, other)| Random::ReadTogether(one, other)),
        1 => ipu.clone().prop_map(Random::Write),
        1 => ipu.clone().prop_map(Random::Load),
        1 => ipu.clone().prop_map(Random::Store),
        1 => any::<bool>().prop_map(Random::Section),
        1 => (ipu, kind).prop_map(|(ipu, kind)| Random::Collective(ipu, kind)),
    ];
    let mut one = leaf.boxed();
    if calls {
        one = prop_oneof![6 => one, 1 => any::<bool>().prop_map(Random::Call)].boxed();
    }
    if depth > 0 {
        let body = (0u32..40, random_steps(depth - 1, calls));
        let repeat = body.prop_map(|(count, body)| Random::Repeat(count, body));
        one = prop_oneof![3 => one, 1 => repeat].boxed();
    }
    prop::collection::vec(one, 0..5).boxed()
}

/// Turns what is random into steps of a program.
struct Maker {
    fixture: Fixture,
    /// A replica's share of each of the vectors that are even.
    shards: Vec<VarId>,
    reads: Vec<[Step; 3]>,
    moves: Vec<[Step; 2]>,
}

impl Maker {
    fn new(n_ipus: u32, n_replicas: u32, depth: u32) -> Self {
        let mut fixture = Fixture::new(n_ipus, n_replicas);
        let _ = ["first", "second"].map(|name| fixture.program.section(name));
        let shards = (0..n_ipus as usize).map(|ipu| fixture.shard(ipu)).collect();
        let (mut reads, mut moves) = (Vec::new(), Vec::new());
        for ipu in 0..n_ipus as usize {
            let (ready, late) = (fixture.read(ipu, true), fixture.read(ipu, false));
            let stream = fixture.program.streams.push(Stream {
                name: "out".into(),
                prefetch: false,
                buffering_depth: depth,
            });
            let buffer = fixture.program.remote_buffers.push(RemoteBuffer {
                name: "moments".into(),
                bytes: Bytes(128),
            });
            let (even, wide) = (fixture.even[ipu], fixture.wide[ipu]);
            let write = fixture.transfers(vec![Transfer::HostWrite { stream, var: even }]);
            reads.push([ready, late, write]);
            let load = Transfer::RemoteLoad { buffer, var: even };
            let store = Transfer::RemoteStore { buffer, var: wide };
            moves.push([
                fixture.transfers(vec![load, store]),
                fixture.transfers(vec![store]),
            ]);
        }
        for stream in fixture.program.streams.values_mut() {
            stream.buffering_depth = depth;
        }
        Self {
            fixture,
            shards,
            reads,
            moves,
        }
    }

    fn steps(&self, steps: &[Random]) -> Vec<Step> {
        let n_ipus = self.fixture.program.n_ipus;
        let at = |ipu: u32| (ipu % n_ipus) as usize;
        let made = steps.iter().filter_map(|step| {
            Some(match step {
                Random::Fill(ipu) => self.fixture.fill(at(*ipu)),
                Random::Spread(ipu) => self.fixture.spread(at(*ipu)),
                Random::Copies(pairs) => {
                    let pairs = pairs.iter().map(|&(a, b)| (at(a), at(b)));
                    let pairs: Vec<_> = pairs.filter(|(a, b)| a != b).collect();
                    if pairs.is_empty() {
                        return None;
                    }
                    self.fixture.copies(&pairs)
                }
                Random::Read(ipu) => self.reads[at(*ipu)][0].clone(),
                Random::Late(ipu) => self.reads[at(*ipu)][1].clone(),
                Random::ReadTogether(one, other) => {
                    let reads = [one, other].map(|&ipu| &self.reads[at(ipu)]);
                    let transfers = [&reads[0][0], &reads[1][1]].map(|step| match step {
                        Step::Transfers { transfers, .. } => transfers[0],
                        other => unreachable!("{other:?} is no read"),
                    });
                    self.fixture.transfers(transfers.into())
                }
                Random::Write(ipu) => self.reads[at(*ipu)][2].clone(),
                Random::Load(ipu) => self.moves[at(*ipu)][0].clone(),
                Random::Store(ipu) => self.moves[at(*ipu)][1].clone(),
                Random::Collective(ipu, kind) => {
                    let src = self.fixture.even[at(*ipu)];
                    let dst = match kind {
                        CollectiveKind::AllReduce => src,
                        _ => self.shards[at(*ipu)],
                    };
                    Step::Collective(Collective {
                        source: SourceId(0),
                        kind: *kind,
                        tensors: vec![CollectiveTensor { src, dst }],
                    })
                }
                Random::Section(second) => Step::Section(SectionId(u32::from(*second))),
                Random::Call(second) => Step::Call(FunctionId(u32::from(*second))),
                Random::Repeat(count, body) => Step::Repeat {
                    count: *count,
                    body: self.steps(body),
                },
            })
        });
        made.collect()
    }
}

/// The same time folded and unfolded, on a machine called `name`.
#[track_caller]
fn check_folding(name: &str, maker: &Maker, steps: &[Random]) {
    let program = Program {
        steps: maker.steps(steps),
        ..maker.fixture.program.clone()
    };
    let machine = simplified(shipped(name).scaled_down(16, 32).unwrap());
    let timed = |mode| {
        let options = Options {
            mode,
            trace_depth: 0,
        };
        time(&program, &machine, options).unwrap()
    };
    assert_eq!(timed(Mode::Folded), timed(Mode::Unfolded));
}

/// Two IPUs in one repeat that never meet: the stream of one isn't moved on with the other.
#[test]
fn streams_move_on_with_their_own_ipu() {
    let body = vec![Random::Spread(0), Random::Read(1), Random::Fill(0)];
    let steps = [Random::Repeat(5, body)];
    check_folding("mk1-server16", &Maker::new(2, 1, 1), &steps);
}

/// Repeats on one IPU inside a repeat that another one leads.
#[test]
fn an_inner_repeat_that_runs_ahead_leaves_the_outer_one_alone() {
    let inner = vec![Random::Write(1), Random::Fill(0)];
    let body = vec![Random::Store(1), Random::Repeat(6, inner)];
    let steps = [Random::Repeat(5, body)];
    check_folding("mk1-server16", &Maker::new(2, 1, 1), &steps);
}

/// Elements of one buffer follow each other: what was foretold of one doesn't end the next.
#[test]
fn an_end_belongs_to_one_transfer() {
    let inner = Random::Repeat(5, vec![Random::Write(1)]);
    let steps = [
        Random::Late(2),
        Random::Write(0),
        Random::Repeat(1, vec![inner]),
    ];
    check_folding("mk2-pod16", &Maker::new(2, 3, 1), &steps);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Any program on any number of replicas, which share links, hosts and streaming memory and
    /// may lie differently on the wiring (three IPUs each, for one).
    #[test]
    fn folding_random_programs_changes_nothing(
        steps in random_steps(2, true),
        functions in [random_steps(1, false), random_steps(0, false)],
        (n_ipus, n_replicas) in (1u32..5).prop_flat_map(|n| (Just(n), 1..=16 / n)),
        depth in 1u32..4,
        slow_links in 1u32..1000,
        mk1 in any::<bool>(),
    ) {
        let mut maker = Maker::new(n_ipus, n_replicas, depth);
        for function in &functions {
            let steps = maker.steps(function);
            maker.fixture.program.functions.push(Function { name: "f".into(), steps });
        }
        let program = Program {
            steps: maker.steps(&steps),
            ..maker.fixture.program.clone()
        };
        let name = if mk1 { "mk1-server16" } else { "mk2-pod16" };
        let mut machine = simplified(shipped(name).scaled_down(16, 32).unwrap());
        // Slow links make transfers last long enough to meet.
        machine.links.usable.0 /= f64::from(slow_links);
        machine.host.ipu_bandwidth.0 /= f64::from(slow_links);
        machine.links.latency = SimSeconds(3e-9);
        let timed = |mode| time(&program, &machine, Options { mode, trace_depth: 2 }).unwrap();
        let folded = timed(Mode::Folded);
        for (ipu, time) in folded.ipus.iter() {
            prop_assert_eq!(time.tally.spent.total(), folded.total);
            let waits = folded.waits.iter().filter(|(wait, _)| wait.ipu == ipu);
            let waited: Cycles = waits.map(|(_, &cycles)| cycles).sum();
            prop_assert_eq!(waited, time.tally.spent.on(Activity::Idle));
            let lines = folded.sources.values().map(|line| line[ipu].spent.total());
            prop_assert_eq!(lines.sum::<Cycles>(), time.finish);
            // What comes before the first section is in none.
            let sections = folded.sections.values().map(|section| section[ipu].total());
            prop_assert!(sections.sum::<Cycles>() <= time.finish);
        }
        check_links(&folded, &program, &machine);
        prop_assert_eq!(folded, timed(Mode::Unfolded));
    }

    /// A pipeline: every stage reads, works, and hands on to the next, many times over.
    #[test]
    fn folding_random_pipelines_changes_nothing(
        work in prop::collection::vec(0usize..4, 1..5),
        (count, outer) in (1u32..300, 1u32..4),
        writes in any::<bool>(),
    ) {
        let n_ipus = work.len() as u32;
        let maker = Maker::new(n_ipus, 16 / n_ipus, 1);
        let mut body = vec![maker.reads[0][0].clone()];
        for (ipu, &fills) in work.iter().enumerate() {
            body.extend(vec![maker.fixture.fill(ipu); fills]);
            body.extend((ipu > 0).then(|| maker.fixture.copies(&[(ipu - 1, ipu)])));
        }
        if writes {
            body.push(maker.reads[work.len() - 1][2].clone());
        }
        let update = maker.steps(&[Random::Collective(0, CollectiveKind::AllReduce)]);
        let mut epoch = vec![Step::Repeat { count, body }];
        epoch.extend(update);
        let program = Program {
            steps: vec![Step::Repeat { count: outer, body: epoch }],
            ..maker.fixture.program.clone()
        };
        let machine = simplified(shipped("mk2-pod16").scaled_down(16, 32).unwrap());
        let timed = |mode| time(&program, &machine, Options { mode, trace_depth: 1 }).unwrap();
        let folded = timed(Mode::Folded);
        check_links(&folded, &program, &machine);
        prop_assert_eq!(folded, timed(Mode::Unfolded));
    }
}
