//! A program that has everything, for others to break.

use ipu_sim::engine::{Mode, Options};
use ipu_sim::ids::IpuId;
use ipu_sim::layout::{AxisSplit, Cut, Layout};
use ipu_sim::numerics::DType;
use ipu_sim::program::{
    Collective, CollectiveKind, CollectiveTensor, ComputeSet, Exchange, Function, IpuCopy, Label,
    Operand, Program, RemoteBuffer, Step, Stream, TileCopy, Transfer, VarKind, Variable,
    VertexGroup,
};
use ipu_sim::spec::MachineSpec;
use ipu_sim::units::Bytes;
use ipu_sim::vertex::{MapOp, MatMulMethod, UnaryFn, Vertex, WeightLoad};
use smallvec::SmallVec;

/// Everything that a program can have, on two replicas of eight IPUs (two IPU-Machines):
///
/// `x` `[16]` on 4 tiles and `wide` on 2, `a` `[8, 16]`, `b` `[16, 8]` and `c` `[8, 8]` on one,
/// `table` `[32, 4]`, `rows` `[3, 4]`, `index` `[3]`, `slot` `[]`, and `shard` `[8]` on 4, all on
/// IPU 0; `far` as `x` on IPU 5.
pub(crate) fn good() -> Program {
    let mut program = Program::new(8, 2);
    let mut layout = |axes| program.add_layout(Layout::row_major(axes));
    let whole = AxisSplit::whole;
    let [four, two] = [4, 2].map(|parts| layout(vec![AxisSplit::cut(16, &[Cut::even(parts)])]));
    let [a, b, c] = [[8, 16], [16, 8], [8, 8]].map(|shape| layout(shape.map(whole).into()));
    let [table, rows] = [[32, 4], [3, 4]].map(|shape| layout(shape.map(whole).into()));
    let (index, slot) = (layout(vec![whole(3)]), layout(vec![]));
    let shard = layout(vec![AxisSplit::cut(8, &[Cut::even(4)])]);
    let mut var = |name: &str, dtype, ipu, layout| {
        program.vars.push(Variable {
            name: name.into(),
            dtype,
            ipu: IpuId(ipu),
            layout,
            kind: VarKind::Activation,
        })
    };
    let (f16, u32) = (DType::F16, DType::U32);
    let (x, wide) = (var("x", f16, 0, four), var("wide", f16, 0, two));
    let [a, b, c] = [("a", a), ("b", b), ("c", c)].map(|(name, layout)| var(name, f16, 0, layout));
    let (table, rows) = (var("table", f16, 0, table), var("rows", f16, 0, rows));
    let (index, slot) = (var("index", u32, 0, index), var("slot", u32, 0, slot));
    let shard = var("shard", f16, 0, shard);
    let far = var("far", f16, 5, four);
    let source = program.add_source("all", "test");
    let section = program.section("main");
    let stream = |name: &str| Stream {
        name: name.into(),
        prefetch: true,
        buffering_depth: 1,
    };
    let comes = program.streams.push(stream("comes"));
    let leaves = program.streams.push(stream("leaves"));
    let buffer = program.remote_buffers.push(RemoteBuffer {
        name: "buffer".into(),
        bytes: Bytes(32),
    });
    let transfers = |transfers: &[Transfer]| Step::Transfers {
        source,
        transfers: transfers.into(),
    };
    let compute = |vertex, output: Operand, inputs: &[Operand]| {
        let inputs = inputs.iter().cloned().collect();
        Step::Compute(ComputeSet {
            source,
            ipu: IpuId(0),
            vertices: vec![VertexGroup {
                vertex,
                output,
                inputs,
            }],
        })
    };
    let collective = |kind, src, dst| {
        Step::Collective(Collective {
            source,
            kind,
            tensors: vec![CollectiveTensor { src, dst }],
        })
    };
    let of = Operand::new;
    let product = Vertex::MatMul {
        method: MatMulMethod::Amp {
            units: 16,
            load: WeightLoad::Bits64,
        },
        groups: SmallVec::new(),
        field: Label(0),
        input: Label(1),
        output: Label(2),
        input_group: 16,
        output_group: 8,
    };
    let row = Label(3);
    let fill = |var, labels: &[u8]| compute(Vertex::Fill(1.0), of(var, labels), &[]);
    let square = Vertex::Map(MapOp::Unary(UnaryFn::Square));
    let function = program.functions.push(Function {
        name: "square".into(),
        steps: vec![compute(square, of(x, &[0]), &[of(x, &[0])])],
    });
    program.steps = vec![
        section,
        transfers(&[Transfer::HostRead {
            stream: comes,
            var: x,
        }]),
        Step::Exchange(Exchange {
            source,
            ipu: IpuId(0),
            copies: vec![TileCopy {
                src: program.view(x),
                dst: program.view(wide),
            }],
        }),
        fill(a, &[0, 1]),
        fill(b, &[1, 2]),
        compute(product, of(c, &[0, 2]), &[of(a, &[0, 1]), of(b, &[1, 2])]),
        fill(table, &[0, 1]),
        fill(index, &[0]),
        fill(slot, &[]),
        compute(
            Vertex::MultiSlice { row, first_row: 0 },
            of(rows, &[0, 1]),
            &[of(table, &[3, 1]), of(index, &[0])],
        ),
        compute(
            Vertex::MultiUpdateAdd {
                row,
                first_row: 0,
                scale: 1.0,
            },
            of(table, &[3, 1]),
            &[of(rows, &[0, 1]), of(index, &[0])],
        ),
        collective(CollectiveKind::AllReduce, x, x),
        collective(CollectiveKind::ReduceScatter, x, shard),
        collective(CollectiveKind::AllGather, shard, x),
        Step::Repeat {
            count: 3,
            body: vec![Step::Call(function)],
        },
        Step::IpuCopies {
            source,
            copies: vec![IpuCopy { src: x, dst: far }],
        },
        transfers(&[Transfer::RemoteStore { buffer, var: x }]),
        transfers(&[Transfer::RemoteLoad { buffer, var: x }]),
        transfers(&[Transfer::HostWrite {
            stream: leaves,
            var: far,
        }]),
    ];
    program
}

/// 16 IPUs of 32 tiles, four to an IPU-Machine.
pub(crate) fn machine() -> MachineSpec {
    let pod = MachineSpec::shipped("mk2-pod16").unwrap();
    pod.scaled_down(16, 32).unwrap()
}

/// Folded, without a trace.
pub(crate) fn options() -> Options {
    Options {
        mode: Mode::Folded,
        trace_depth: 0,
    }
}
