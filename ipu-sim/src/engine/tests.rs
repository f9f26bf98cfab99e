//! Small programs, timed by hand.

use std::collections::BTreeMap;

use expect_test::{Expect, expect};
use smallvec::SmallVec;

mod extremes;
mod links;
mod random;

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
use crate::vertex::{MatMulMethod, Vertex, WeightLoad};

/// Four IPUs of 32 tiles with a clock of 1 GHz, on which hosts and streaming memory move a
/// byte a cycle after 128 cycles, gateways 32, and links cost nothing but their 26.5 bytes a cycle.
fn machine() -> MachineSpec {
    simplified(small())
}

fn simplified(mut machine: MachineSpec) -> MachineSpec {
    machine.tile.clock = Hertz(1e9);
    machine.host.latency = SimSeconds(128e-9);
    machine.host.machine_bandwidth = BytesPerSecond(1e9);
    machine.streaming_memory.latency = SimSeconds(128e-9);
    machine.streaming_memory.bandwidth = BytesPerSecond(1e9);
    machine.links.latency = SimSeconds(0.0);
    machine.links.hop = SimSeconds(0.0);
    machine.sync.hop = SimSeconds(0.0);
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
            program.add_layout(Layout::row_major(vec![AxisSplit::cut(
                64,
                &[Cut::even(parts)],
            )]))
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

    /// A replica's share of `even`.
    fn shard(&mut self, ipu: usize) -> VarId {
        let share = 8u32.div_ceil(self.program.n_replicas);
        let layout = Layout::row_major(vec![AxisSplit::cut(8 * share, &[Cut::even(8)])]);
        let layout = self.program.add_layout(layout);
        let variable = self.program.vars[self.even[ipu]].clone();
        self.program.vars.push(Variable { layout, ..variable })
    }

    fn read(&mut self, ipu: usize, prefetch: bool) -> Step {
        let stream = self.program.streams.push(Stream {
            name: "in".into(),
            prefetch,
            buffering_depth: 1,
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

/// The time of some steps, folded, after comparing it with a walk of all passes and replicas.
#[track_caller]
fn timed(fixture: &Fixture, steps: Vec<Step>) -> Timeline {
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
    folded
}

/// Clocks and activities in one line for each IPU.
#[track_caller]
fn check(fixture: &Fixture, steps: Vec<Step>, expected: Expect) -> Timeline {
    let folded = timed(fixture, steps);
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
fn a_host_starts_a_run_and_all_ipus_wait_for_it() {
    let mut fixture = Fixture::new(2, 2);
    let steps = vec![fixture.fill(0), fixture.fill(1)];
    let before = timed(&fixture, steps.clone());
    fixture.program.started_by_host = true;
    let after = timed(&fixture, steps);
    let clock = machine().tile.clock;
    let start = clock.cycles(machine().host.run);
    assert!(start > Cycles::ZERO);
    assert_eq!(after.start, start);
    assert_eq!(after.total, before.total + start);
    assert_eq!(after.device_cycles(), before.device_cycles());
    for ipu in [IpuId(0), IpuId(1)] {
        let wait = Wait {
            ipu,
            section: None,
            on: WaitCause::Host,
        };
        assert_eq!(after.waits.get(&wait), Some(&start));
        assert_eq!(after.ipus[ipu].usage.runs, 1);
        assert_eq!(after.ipus[ipu].tally.spent.total(), after.total);
    }
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
            IPU 0: 370, Compute 168, Exchange 8, Dispatch 37, Launch 157
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
            IPU 0: 810, Compute 168, Dispatch 37, IpuCopy 605
            IPU 1: 810, IpuCopy 605, Idle 205
            IPU 2: 205, Compute 168, Dispatch 37, Idle 605
        "#]],
    );
    assert_eq!(timeline.moved.on(Channel::IpuLink), Bytes(128));
    assert_eq!(timeline.sources[SourceId(0)][IpuId(1)].steps, 1);
}

#[test]
fn prefetched_elements_wait_beside_the_device() {
    let mut fixture = Fixture::new(2, 1);
    let ready = fixture.read(0, true);
    let late = fixture.read(1, false);
    // 128 B wait in the gateway: an answer (128) and 4 cycles of PCIe. Otherwise the host is asked
    // (128), answers (128) and sends first: 4 B, until it also sends the next element to the other
    // gateway buffer, and then 124 B at half the rate.
    let timeline = check(
        &fixture,
        vec![ready, late],
        expect![[r#"
            IPU 0: 132, Host 132, Idle 380
            IPU 1: 512, Host 132, Idle 380
        "#]],
    );
    let first = timeline.streams[StreamId(0)].unwrap();
    assert_eq!(
        (first.first_begin, first.last_end),
        (Cycles(0), Cycles(132))
    );
    assert_eq!(timeline.total, Cycles(128 + 128 + 4 + 2 * 124 + 4));
}

#[test]
fn a_device_that_reads_faster_than_its_host_sends_waits_for_it() {
    let mut fixture = Fixture::new(1, 1);
    let read = fixture.read(0, true);
    let steps = |count| {
        vec![Step::Repeat {
            count,
            body: vec![read.clone()],
        }]
    };
    // The place of an element is free when it has left (132); the next one is there 256 cycles
    // later and takes 4 more.
    let timeline = check(
        &fixture,
        steps(1000),
        expect![[r#"
            IPU 0: 259872, Host 132000, Idle 127872
        "#]],
    );
    assert_eq!(timeline.total, Cycles(132 + 999 * (128 + 128 + 4)));
    // With places for three, the host sends on while an element leaves: 256 cycles each.
    fixture.program.streams[StreamId(0)].buffering_depth = 3;
    let deeper = check(
        &fixture,
        steps(1000),
        expect![[r#"
            IPU 0: 255368, Host 132000, Idle 123368
        "#]],
    );
    assert!(deeper.total < timeline.total);
    // A device that computes in between finds its element ready.
    let mut body = vec![read.clone()];
    body.extend(vec![fixture.fill(0); 2]);
    let hidden = check(
        &fixture,
        vec![Step::Repeat { count: 1000, body }],
        expect![[r#"
            IPU 0: 542000, Compute 336000, Dispatch 74000, Host 132000
        "#]],
    );
    assert_eq!(hidden.total, Cycles(1000 * (132 + 2 * (DISPATCH + 168))));
}

#[test]
fn results_leave_the_device_before_they_reach_the_host() {
    let mut fixture = Fixture::new(1, 1);
    let stream = fixture.program.streams.push(Stream {
        name: "out".into(),
        prefetch: false,
        buffering_depth: 1,
    });
    let write = fixture.transfers(vec![Transfer::HostWrite {
        stream,
        var: fixture.even[0],
    }]);
    // An answer (128) and 4 cycles of PCIe; the host has it 128 cycles later.
    let timeline = check(
        &fixture,
        vec![write],
        expect![[r#"
        IPU 0: 132, Host 132, Idle 128
    "#]],
    );
    assert_eq!(timeline.ipus[IpuId(0)].finish, Cycles(132));
    assert_eq!(timeline.streams[stream].unwrap().last_end, Cycles(260));
    assert_eq!(timeline.total, Cycles(260));
}

#[test]
fn replicas_share_the_network_of_their_machine() {
    let total = |n_replicas| {
        let mut fixture = Fixture::new(1, n_replicas);
        let late = fixture.read(0, false);
        timed(&fixture, vec![late]).total
    };
    assert_eq!(total(1), Cycles(128 + 128 + 128 + 4));
    // Four times 128 B over one network adapter, and each over its own PCIe.
    assert_eq!(total(4), Cycles(128 + 128 + 4 * 128 + 4));
}

#[test]
fn replicas_share_streaming_memory() {
    for (n_replicas, expected) in [(1, 128), (4, 512)] {
        let mut fixture = Fixture::new(1, n_replicas);
        let buffer = fixture.program.remote_buffers.push(RemoteBuffer {
            name: "moments".into(),
            bytes: Bytes(128),
        });
        let var = fixture.even[0];
        let steps = vec![fixture.transfers(vec![Transfer::RemoteLoad { buffer, var }])];
        // A sync (600), an answer (128), and a byte a cycle for all.
        let total = timed(&fixture, steps).total;
        assert_eq!(total, Cycles(600 + 128 + expected));
    }
}

#[test]
fn copies_of_different_steps_meet_on_a_link() {
    // IPUs 1 to 3 of a ladder: 1 and 3 lie on one rail. The copy 1 to 2 crosses the rung and then
    // the rail 0 to 2, over which 0 copies as well.
    let mut fixture = Fixture::new(4, 1);
    let layout = fixture
        .program
        .add_layout(Layout::row_major(vec![AxisSplit::cut(
            1_325_000,
            &[Cut::even(32)],
        )]));
    for var in &fixture.even {
        fixture.program.vars[*var].layout = layout;
    }
    // 2,650,000 B alone: 100,000 cycles at 26.5 B a cycle, after a sync of 600.
    let alone = timed(&fixture, vec![fixture.copies(&[(0, 2)])]);
    assert_eq!(alone.total, Cycles(600 + 100_000));
    // The other pair shares no link.
    let apart = timed(
        &fixture,
        vec![fixture.copies(&[(0, 2)]), fixture.copies(&[(1, 3)])],
    );
    assert_eq!(apart.total, alone.total);
    // One step: both cross from 0 to 2 and get half of the rail.
    let together = timed(&fixture, vec![fixture.copies(&[(0, 2), (1, 2)])]);
    assert_eq!(together.total, Cycles(600 + 200_000));
}

#[test]
fn a_later_copy_slows_an_earlier_one_down() {
    let mut fixture = Fixture::new(7, 1);
    let layout = Layout::row_major(vec![AxisSplit::cut(1_325_000, &[Cut::even(32)])]);
    let layout = fixture.program.add_layout(layout);
    for number in 0..7 {
        let [large, small] = [fixture.even[number], fixture.wide[number]];
        fixture.program.vars[large].layout = layout;
        fixture.even[number] = small;
        fixture.wide[number] = large;
    }
    let copy = |from: usize, to: usize| Step::IpuCopies {
        source: SourceId(0),
        copies: vec![IpuCopy {
            src: fixture.wide[from],
            dst: fixture.wide[to],
        }],
    };
    // 0 to 4 has the rail for itself for 100,000 cycles at 26.5 B each, but for 2 to 6, which comes
    // `late` cycles later. Both then have half of the way from 2 to 4, so that the first takes
    // 100,000 + (100,000 - late), and the second, alone again, another `late`.
    let steps = vec![copy(0, 4), fixture.fill(2), copy(2, 6)];
    let program = Program {
        steps,
        ..fixture.program.clone()
    };
    let machine = simplified(
        crate::spec::fixtures::machine("mk2-pod16")
            .scaled_down(8, 32)
            .unwrap(),
    );
    for mode in [Mode::Folded, Mode::Unfolded] {
        let timeline = time(
            &program,
            &machine,
            Options {
                mode,
                trace_depth: 0,
            },
        )
        .unwrap();
        let late = timeline.ipus[IpuId(2)].tally.spent.on(Activity::Compute) + Cycles(DISPATCH);
        assert!(late > Cycles(100));
        let both = Cycles(600 + 200_000);
        assert_eq!(timeline.ipus[IpuId(0)].finish, both - late);
        assert_eq!(timeline.ipus[IpuId(2)].finish, both);
    }
}

#[test]
fn collectives_go_around_the_replicas() {
    let mut fixture = Fixture::new(1, 4);
    let shard = fixture.shard(0);
    let collective = |kind| {
        let tensor = CollectiveTensor {
            src: fixture.even[0],
            dst: shard,
        };
        Step::Collective(Collective {
            source: SourceId(0),
            kind,
            tensors: vec![tensor],
        })
    };
    // Four replicas meet in the middle: two rounds, each a sync (600) and 32
    // bytes at 26.5 a cycle (2), to both sides and then to one. Three additions of two elements
    // on each tile. A shard is a copy on each tile: 287 for 4 bytes.
    let steps = vec![
        collective(CollectiveKind::ReduceScatter),
        collective(CollectiveKind::TakeShard),
    ];
    let timeline = check(
        &fixture,
        steps,
        expect![[r#"
            IPU 0: 2772, Compute 1531, Dispatch 37, Collective 1204
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
            IPU 0: 122000, Compute 16800, Dispatch 3700, IpuCopy 60500, Idle 41000
            IPU 1: 122000, Compute 50400, Dispatch 11100, IpuCopy 60500
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
        on: WaitCause::Ipu(IpuId(1)),
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
            vertex: Vertex::MatMul {
                method: MatMulMethod::Amp {
                    units: 16,
                    load: WeightLoad::Bits64,
                },
                groups: SmallVec::new(),
                field: Label(0),
                input: Label(1),
                output: Label(2),
                input_group: 16,
                output_group: 16,
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
            IPU 0: 42005, Compute 38268, Dispatch 3737
        "#]],
    );
    let fill = Cycles(DISPATCH + 168);
    let in_section = |id| timeline.sections[SectionId(id)][IpuId(0)].total();
    assert_eq!(in_section(1), fill * 50);
    assert_eq!(in_section(0) + fill * 51, timeline.total);
    let flops = timeline.ipus[IpuId(0)].tally.products.total();
    assert_eq!(flops, 50 * 2 * 3 * 16 * 32);
}

#[test]
fn ipus_that_never_meet_fold_apart() {
    let fixture = Fixture::new(2, 1);
    let body = vec![fixture.fill(0), fixture.fill(1), fixture.fill(1)];
    let steps = vec![Step::Repeat {
        count: 1_000_000,
        body,
    }];
    let options = Options {
        mode: Mode::Folded,
        trace_depth: 0,
    };
    let program = Program {
        steps,
        ..fixture.program.clone()
    };
    // A million passes would take a second to walk.
    let timeline = time(&program, &machine(), options).unwrap();
    let finish = |ipu| timeline.ipus[IpuId(ipu)].finish;
    assert_eq!(finish(0), Cycles(1_000_000 * (DISPATCH + 168)));
    assert_eq!(finish(1), finish(0) * 2);
}

/// Functions that each call the next one twice, and repeats of two passes in each other.
#[test]
fn calls_and_passes_that_double_are_worked_out_once() {
    let doubled = |levels: u32| {
        let mut fixture = Fixture::new(2, 1);
        let [first, second] = ["first", "second"].map(|name| fixture.program.section(name));
        for next in 1..=levels {
            let call = Step::Call(FunctionId(next));
            fixture.program.functions.push(Function {
                name: format!("calls {next} twice"),
                steps: vec![call.clone(), fixture.fill(0), call],
            });
        }
        fixture.program.functions.push(Function {
            name: "last".into(),
            steps: vec![fixture.fill(1), second, fixture.spread(0)],
        });
        let repeats = (0..levels).fold(vec![fixture.fill(0)], |body, _| {
            vec![fixture.fill(1), Step::Repeat { count: 2, body }]
        });
        let mut steps = vec![fixture.fill(0), first, Step::Call(FunctionId(0))];
        steps.push(fixture.copies(&[(0, 1)]));
        steps.extend(repeats);
        (fixture, steps)
    };
    for levels in 0..6 {
        let (fixture, steps) = doubled(levels);
        timed(&fixture, steps);
    }
    let (mut fixture, steps) = doubled(48);
    fixture.program.steps = steps;
    let options = Options {
        mode: Mode::Folded,
        trace_depth: 3,
    };
    let timeline = time(&fixture.program, &machine(), options).unwrap();
    let last = timeline.functions[FunctionId(48)][IpuId(0)];
    assert_eq!(last.calls, 1 << 48);
    assert_eq!(last.tally.spent.total(), Cycles((LAUNCH + 8) << 48));
    crate::weigh::weigh(&fixture.program, &machine()).unwrap();
    let at = (IpuId(0), crate::ids::TileId(0));
    let curves = crate::weigh::live_curves(&fixture.program, &machine(), &[at]);
    assert!(curves[0].len() < 1000, "a function is walked once");
}

#[test]
fn empty_repeats_and_calls_take_no_time_and_sections_are_counted() {
    let options = Options {
        mode: Mode::Folded,
        trace_depth: 1,
    };
    let doubled = |last: Vec<Step>| {
        let mut fixture = Fixture::new(1, 1);
        for next in 1..=100 {
            let call = Step::Call(FunctionId(next));
            fixture.program.functions.push(Function {
                name: String::new(),
                steps: vec![call.clone(), call],
            });
        }
        let name = String::new();
        let steps = last;
        fixture.program.functions.push(Function { name, steps });
        fixture.program.section("section");
        let body = vec![Step::Call(FunctionId(0))];
        let body = vec![Step::Repeat {
            count: u32::MAX,
            body,
        }];
        fixture.program.steps = vec![Step::Repeat {
            count: u32::MAX,
            body,
        }];
        time(&fixture.program, &machine(), options)
    };
    assert_eq!(doubled(Vec::new()).unwrap().total, Cycles::ZERO);
    let error = doubled(vec![Step::Section(SectionId(0))]).unwrap_err();
    assert!(error.to_string().contains("repeat less"), "{error}");
}

#[test]
fn the_trace_shows_the_first_pass_and_all_of_a_repeat() {
    let mut fixture = Fixture::new(2, 1);
    let function = fixture.program.functions.push(Function {
        name: "work".into(),
        steps: vec![fixture.fill(0), fixture.fill(0)],
    });
    let body = vec![fixture.fill(0), Step::Call(function), fixture.fill(1)];
    fixture.program.steps = vec![fixture.fill(0), Step::Repeat { count: 4, body }];
    let options = Options {
        mode: Mode::Folded,
        trace_depth: 2,
    };
    let timeline = time(&fixture.program, &machine(), options).unwrap();
    let spans: Vec<String> = timeline
        .trace
        .spans
        .iter()
        .map(|span| {
            format!(
                "{:?} {} {:?} {}-{}",
                &span.path[..],
                span.ipu,
                span.kind,
                span.begin.0,
                span.end.0
            )
        })
        .collect();
    expect![[r#"
        [0] IPU 0 Step(SourceId(0)) 0-205
        [1] IPU 0 Repeat { count: 4 } 205-2665
        [1] IPU 1 Repeat { count: 4 } 0-820
        [1, 0] IPU 0 Step(SourceId(0)) 205-410
        [1, 1] IPU 0 Call(FunctionId(0)) 410-820
        [1, 2] IPU 1 Step(SourceId(0)) 0-205"#]]
    .assert_eq(&spans.join("\n"));
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
