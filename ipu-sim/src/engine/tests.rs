//! Small programs, timed by hand.

use std::collections::BTreeMap;

use expect_test::{Expect, expect};
use proptest::prelude::*;
use smallvec::SmallVec;

use super::*;
use crate::cost::memory;
use crate::ids::IpuId;
use crate::layout::{AxisSplit, Cut, Layout};
use crate::numerics::DType;
use crate::program::{
    Collective, CollectiveKind, CollectiveTensor, ComputeSet, Exchange, Function, FunctionId,
    IpuCopy, Label, Operand, RemoteBuffer, SectionId, SourceId, Step, Stream, StreamId, TileCopy,
    Transfer, VarId, VarKind, Variable, VertexGroup,
};
use crate::spec::fixtures::small;
use crate::units::{Bytes, BytesPerSecond, Cycles, Hertz, SimSeconds};
use crate::vertex::Vertex;

/// Four IPUs of 32 tiles with a clock of 1 GHz, on which hosts and streaming memory move a
/// byte a cycle after 128 cycles, and links cost nothing but their 26.5 bytes a cycle.
fn machine() -> MachineSpec {
    let mut machine = small();
    machine.tile.clock = Hertz(1e9);
    machine.host.latency = SimSeconds(128e-9);
    machine.host.machine_bandwidth = BytesPerSecond(1e9);
    machine.streaming_memory.latency = SimSeconds(128e-9);
    machine.streaming_memory.bandwidth = BytesPerSecond(1e9);
    machine.links.latency = SimSeconds(0.0);
    machine.sync.hop = SimSeconds(0.0);
    machine.sync.external = SimSeconds(1e-6);
    machine
}

/// Launch of an exchange among the first eight tiles: sync and route.
const LAUNCH: u64 = 126 + 31;
const DISPATCH: u64 = 37;

/// A program of `n_ipus` IPUs with a vector of `64` f16 on each, spread over 8 tiles
/// (`even`), and the same on 4 tiles (`wide`).
struct Fixture {
    program: Program,
    even: Vec<VarId>,
    wide: Vec<VarId>,
}

impl Fixture {
    fn new(n_ipus: u32, n_replicas: u32) -> Self {
        let mut program = Program::new(n_ipus, n_replicas);
        program.add_source("work", "test");
        let mut spread = |parts| {
            let cut = Cut {
                parts,
                grain: 1,
                tile_stride: 1,
            };
            program.add_layout(Layout::row_major(vec![AxisSplit::cut(64, &[cut])]))
        };
        let (even, wide) = (spread(8), spread(4));
        let mut add = |ipu, layout| {
            program.vars.push(Variable {
                name: format!("x{ipu}"),
                dtype: DType::F16,
                ipu: IpuId(ipu),
                layout,
                kind: VarKind::Activation,
            })
        };
        Self {
            even: (0..n_ipus).map(|ipu| add(ipu, even)).collect(),
            wide: (0..n_ipus).map(|ipu| add(ipu, wide)).collect(),
            program,
        }
    }

    fn fill(&self, ipu: usize) -> Step {
        Step::Compute(ComputeSet {
            source: SourceId(0),
            ipu: IpuId(ipu as u32),
            vertices: vec![VertexGroup {
                vertex: Vertex::Fill(0.0),
                output: Operand::new(self.even[ipu], &[0]),
                inputs: SmallVec::new(),
            }],
        })
    }

    fn spread(&self, ipu: usize) -> Step {
        Step::Exchange(Exchange {
            source: SourceId(0),
            ipu: IpuId(ipu as u32),
            copies: vec![TileCopy {
                src: self.program.view(self.even[ipu]),
                dst: self.program.view(self.wide[ipu]),
            }],
        })
    }

    fn copies(&self, pairs: &[(usize, usize)]) -> Step {
        Step::IpuCopies {
            source: SourceId(0),
            copies: pairs
                .iter()
                .map(|&(from, to)| IpuCopy {
                    src: self.even[from],
                    dst: self.even[to],
                })
                .collect(),
        }
    }

    fn read(&mut self, ipu: usize, prefetch: bool) -> Step {
        let stream = self.program.streams.push(Stream {
            name: "in".into(),
            prefetch,
        });
        self.transfers(vec![Transfer::HostRead {
            stream,
            var: self.even[ipu],
        }])
    }

    fn transfers(&self, transfers: Vec<Transfer>) -> Step {
        Step::Transfers {
            source: SourceId(0),
            transfers,
        }
    }
}

/// Clocks and activities in one line for each IPU.
#[track_caller]
fn check(fixture: &Fixture, steps: Vec<Step>, expected: Expect) -> Timeline {
    let program = Program {
        steps,
        ..fixture.program.clone()
    };
    let timed = |mode| {
        let options = Options {
            mode,
            trace_depth: 1,
        };
        time(&program, &machine(), options).unwrap()
    };
    let folded = timed(Mode::Folded);
    assert_eq!(folded, timed(Mode::Unfolded));
    let mut text = String::new();
    for (ipu, time) in folded.ipus.iter() {
        text += &format!("{ipu}: {}", time.finish.0);
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
fn compute_and_exchange_on_one_ipu() {
    let fixture = Fixture::new(1, 1);
    // 8 elements on each tile; 16 on each of 4 tiles: tile 0 has 8 of its 16 already, the
    // others receive 32 bytes, 4 a cycle.
    assert_eq!(memory::fill(DType::F16, 8, &machine().tile), Cycles(168));
    let timeline = check(
        &fixture,
        vec![fixture.fill(0), fixture.spread(0)],
        expect![[r#"
            IPU 0: 370, Compute 168, Exchange 8, Sync 194
        "#]],
    );
    assert_eq!(timeline.total, Cycles(DISPATCH + 168 + LAUNCH + 8));
}

#[test]
fn an_exchange_that_stays_on_its_tiles_takes_no_time() {
    let fixture = Fixture::new(1, 1);
    let same = TileCopy {
        src: fixture.program.view(fixture.even[0]),
        dst: fixture.program.view(fixture.even[0]),
    };
    let step = Step::Exchange(Exchange {
        source: SourceId(0),
        ipu: IpuId(0),
        copies: vec![same],
    });
    check(
        &fixture,
        vec![step],
        expect![[r#"
        IPU 0: 0
    "#]],
    );
}

#[test]
fn copies_between_ipus_join_them() {
    let fixture = Fixture::new(3, 1);
    // 128 bytes at 26.5 a cycle: 5 cycles after a global sync of 600.
    let steps = vec![fixture.fill(0), fixture.copies(&[(0, 1)]), fixture.fill(2)];
    let timeline = check(
        &fixture,
        steps,
        expect![[r#"
        IPU 0: 810, Compute 168, Sync 37, IpuCopy 605
        IPU 1: 810, IpuCopy 605, Idle 205
        IPU 2: 205, Compute 168, Sync 37, Idle 605
    "#]],
    );
    assert_eq!(timeline.moved.on(Channel::IpuLink), Bytes(128));
    assert_eq!(timeline.sources[SourceId(0)][IpuId(1)].steps, 1);
}

#[test]
fn transfers_wait_for_their_line_and_late_hosts() {
    let mut fixture = Fixture::new(2, 1);
    let buffer = fixture.program.remote_buffers.push(RemoteBuffer {
        name: "moments".into(),
        bytes: Bytes(128),
    });
    let ready = fixture.read(0, true);
    let late = fixture.read(1, false);
    let load = |ipu| {
        fixture.transfers(vec![Transfer::RemoteLoad {
            buffer,
            var: fixture.even[ipu],
        }])
    };
    // IPU 0 reads over the line of the IPU-Machine's host from 128 to 256. The host of IPU 1
    // is asked first, so that the line is free when its data comes, from 256 to 384. Loads
    // are one after the other, since both IPUs take part: a sync (600), a start (1000), a
    // request (128) and 128 cycles of streaming memory.
    let steps = vec![ready, late, load(0), load(1)];
    let timeline = check(
        &fixture,
        steps,
        expect![[r#"
            IPU 0: 4096, Host 256, StreamingMemory 3712, Idle 128
            IPU 1: 4096, Host 256, StreamingMemory 3712, Idle 128
        "#]],
    );
    let first = timeline.streams[StreamId(0)].unwrap();
    assert_eq!(
        (first.first_begin, first.last_end),
        (Cycles(0), Cycles(256))
    );
    assert_eq!(timeline.moved.on(Channel::RemoteLoad), Bytes(256));
}

#[test]
fn collectives_go_around_the_replicas() {
    let fixture = Fixture::new(1, 4);
    let collective = |kind| {
        let tensor = CollectiveTensor {
            src: fixture.even[0],
            dst: fixture.even[0],
        };
        Step::Collective(Collective {
            source: SourceId(0),
            kind,
            tensors: vec![tensor],
        })
    };
    // A start (1000), three steps of a sync (600) and 16 of the 128 bytes each way, 26.5 a cycle; a shard is
    // a copy on each tile: 288 and 16 bytes.
    let steps = vec![
        collective(CollectiveKind::ReduceScatter),
        collective(CollectiveKind::TakeShard),
    ];
    let timeline = check(
        &fixture,
        steps,
        expect![[r#"
        IPU 0: 3130, Compute 290, Sync 37, Collective 2803
    "#]],
    );
    assert_eq!(timeline.moved.on(Channel::Collective), Bytes(3 * 32));
}

#[test]
fn a_pipeline_of_functions_costs_its_slowest_stage() {
    let mut fixture = Fixture::new(2, 1);
    for (ipu, name) in ["first", "second"].into_iter().enumerate() {
        let fills = vec![fixture.fill(ipu); 1 + 2 * ipu];
        fixture.program.functions.push(Function {
            name: name.into(),
            steps: fills,
        });
    }
    let cycle = vec![
        Step::Call(FunctionId(0)),
        Step::Call(FunctionId(1)),
        fixture.copies(&[(0, 1)]),
    ];
    let steps = vec![Step::Repeat {
        count: 100,
        body: cycle,
    }];
    let timeline = check(
        &fixture,
        steps,
        expect![[r#"
        IPU 0: 122000, Compute 16800, Sync 3700, IpuCopy 60500, Idle 41000
        IPU 1: 122000, Compute 50400, Sync 11100, IpuCopy 60500
    "#]],
    );
    assert_eq!(timeline.total, Cycles(100 * (3 * (DISPATCH + 168) + 605)));
    let span = &timeline.trace.spans[0];
    assert_eq!((span.begin, span.end), (Cycles::ZERO, timeline.total));
    let join = Join {
        section: None,
        source: SourceId(0),
        last: IpuId(1),
    };
    assert_eq!(timeline.joins, BTreeMap::from([(join, 100)]));
    let wait = Wait {
        ipu: IpuId(0),
        section: None,
        on: Awaited::Ipu(IpuId(1)),
    };
    assert_eq!(timeline.waits, BTreeMap::from([(wait, Cycles(41_000))]));
    let called = timeline.functions[FunctionId(1)][IpuId(1)];
    assert_eq!(called.calls, 100);
    assert_eq!(
        called.tally.spent.total(),
        Cycles(100 * 3 * (DISPATCH + 168))
    );
}

#[test]
fn sections_sort_cycles_and_products_are_counted() {
    let mut fixture = Fixture::new(1, 1);
    let mut matrix = |rows, columns| {
        let axes = vec![AxisSplit::whole(rows), AxisSplit::whole(columns)];
        let layout = fixture.program.add_layout(Layout::row_major(axes));
        fixture.program.vars.push(Variable {
            name: "matrix".into(),
            dtype: DType::F16,
            ipu: IpuId(0),
            layout,
            kind: VarKind::Weight,
        })
    };
    let (input, weights, output) = (matrix(3, 16), matrix(16, 32), matrix(3, 32));
    let product = Step::Compute(ComputeSet {
        source: SourceId(0),
        ipu: IpuId(0),
        vertices: vec![VertexGroup {
            vertex: Vertex::Amp {
                groups: SmallVec::new(),
                field: Label(0),
                input: Label(1),
                output: Label(2),
                input_group: 16,
                output_group: 16,
                units: 16,
            },
            output: Operand::new(output, &[0, 2]),
            inputs: SmallVec::from_iter([
                Operand::new(input, &[0, 1]),
                Operand::new(weights, &[1, 2]),
            ]),
        }],
    });
    let [first, second] = ["first", "second"].map(|name| fixture.program.section(name));
    let body = vec![first, product, second, fixture.fill(0)];
    let steps = vec![fixture.fill(0), Step::Repeat { count: 50, body }];
    let timeline = check(
        &fixture,
        steps,
        expect![[r#"
            IPU 0: 42005, Compute 38268, Sync 3737
        "#]],
    );
    let fill = Cycles(DISPATCH + 168);
    let in_section = |id| timeline.sections[SectionId(id)][IpuId(0)].total();
    assert_eq!(in_section(1), fill * 50);
    assert_eq!(in_section(0) + fill * 51, timeline.total);
    let flops = timeline.ipus[IpuId(0)].tally.matmul_flops;
    assert_eq!(flops, 50 * 2 * 3 * 16 * 32);
}

#[test]
fn replicas_that_do_not_fit_are_refused() {
    let fixture = Fixture::new(2, 3);
    let options = Options {
        mode: Mode::Folded,
        trace_depth: 0,
    };
    let error = time(&fixture.program, &machine(), options).unwrap_err();
    let message = "3 replicas of 2 IPUs don't fit, expected at most 4 IPUs, got 6";
    assert_eq!(error.to_string(), message);
}

/// What a random step does, and on which IPUs.
#[derive(Clone, Debug)]
enum Random {
    Fill(usize),
    Spread(usize),
    Copy(usize, usize),
    Read(usize),
    Repeat(u32, Vec<Random>),
}

fn random_steps(depth: u32) -> BoxedStrategy<Vec<Random>> {
    let ipu = 0usize..3;
    let leaf = prop_oneof![
        3 => ipu.clone().prop_map(Random::Fill),
        2 => ipu.clone().prop_map(Random::Spread),
        2 => (ipu.clone(), 1usize..3).prop_map(|(a, d)| Random::Copy(a, (a + d) % 3)),
        1 => ipu.prop_map(Random::Read),
    ];
    let mut one = leaf.boxed();
    if depth > 0 {
        let body = (0u32..60, random_steps(depth - 1));
        let repeat = body.prop_map(|(count, body)| Random::Repeat(count, body));
        one = prop_oneof![3 => one, 1 => repeat].boxed();
    }
    prop::collection::vec(one, 0..5).boxed()
}

fn made(fixture: &Fixture, reads: &[Step], steps: &[Random]) -> Vec<Step> {
    steps
        .iter()
        .map(|step| match step {
            Random::Fill(ipu) => fixture.fill(*ipu),
            Random::Spread(ipu) => fixture.spread(*ipu),
            Random::Copy(a, b) => fixture.copies(&[(*a, *b)]),
            Random::Read(ipu) => reads[*ipu].clone(),
            Random::Repeat(count, body) => Step::Repeat {
                count: *count,
                body: made(fixture, reads, body),
            },
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn folding_random_programs_changes_nothing(steps in random_steps(2)) {
        let mut fixture = Fixture::new(3, 1);
        let reads: Vec<Step> = (0..3).map(|ipu| fixture.read(ipu, ipu != 1)).collect();
        let program = Program {
            steps: made(&fixture, &reads, &steps),
            ..fixture.program.clone()
        };
        let timed = |mode| time(&program, &machine(), Options { mode, trace_depth: 0 }).unwrap();
        let folded = timed(Mode::Folded);
        for ipu in folded.ipus.values() {
            prop_assert_eq!(ipu.tally.spent.total(), folded.total);
        }
        prop_assert_eq!(folded, timed(Mode::Unfolded));
    }
}
