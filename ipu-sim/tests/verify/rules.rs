//! Changes of a good program that each break one rule.

use ipu_sim::device::{DeviceError, ErrorClass};
use ipu_sim::engine::time;
use ipu_sim::ids::IpuId;
use ipu_sim::layout::{AxisSplit, Layout, StorageLoop};
use ipu_sim::numerics::DType;
use ipu_sim::program::{
    Collective, CollectiveKind, CollectiveTensor, Exchange, Function, FunctionId, IpuCopy, Label,
    LayoutId, Program, RemoteBufferId, SectionId, SourceId, Step, StreamId, Transfer, VarId,
    VertexGroup,
};
use ipu_sim::replica::ReplicaError;
use ipu_sim::units::Bytes;
use ipu_sim::verify::VerifyError;
use ipu_sim::vertex::{BinaryFn, MapOp, Vertex};
use smallvec::smallvec;

use crate::good::{good, machine, options};

#[test]
fn a_good_program_keeps_every_rule() {
    let (program, machine) = (good(), machine());
    assert_eq!(program.verify(&machine), Ok(()));
    assert!(time(&program, &machine, options()).is_ok());
}

/// `change` breaks the good program as `expected` says, before it is timed, too.
#[track_caller]
fn refused(change: impl FnOnce(&mut Program), expected: &str) {
    let (mut program, machine) = (good(), machine());
    change(&mut program);
    let error = time(&program, &machine, options()).unwrap_err();
    assert_eq!(error.to_string(), expected);
    assert_eq!(DeviceError::from(error).class(), ErrorClass::Setup);
}

const X: VarId = VarId(0);
const WIDE: VarId = VarId(1);
const C: VarId = VarId(4);
const INDEX: VarId = VarId(7);
const SHARD: VarId = VarId(9);
const FAR: VarId = VarId(10);

fn group(program: &mut Program, step: usize) -> &mut VertexGroup {
    match &mut program.steps[step] {
        Step::Compute(set) => &mut set.vertices[0],
        other => unreachable!("{other:?} is no compute set"),
    }
}

fn exchange(program: &mut Program) -> &mut Exchange {
    match &mut program.steps[2] {
        Step::Exchange(exchange) => exchange,
        other => unreachable!("{other:?} is no exchange"),
    }
}

fn transfer(program: &mut Program, step: usize) -> &mut Vec<Transfer> {
    match &mut program.steps[step] {
        Step::Transfers { transfers, .. } => transfers,
        other => unreachable!("{other:?} transfers nothing"),
    }
}

/// Gives a variable a layout of its own.
fn lay(program: &mut Program, var: VarId, change: impl FnOnce(&mut Layout)) {
    let mut layout = program.layout_of(var).clone();
    change(&mut layout);
    program.vars[var].layout = program.add_layout(layout);
}

#[test]
fn ids_are_those_of_something() {
    refused(
        |p| group(p, 3).output.var = VarId(99),
        "step 3 (`all`): there is no variable 99, expected one below 11",
    );
    refused(
        |p| p.vars[X].layout = LayoutId(99),
        "variable `x`: there is no layout 99, expected one below 10",
    );
    refused(
        |p| p.steps.push(Step::Call(FunctionId(9))),
        "step 19: there is no function 9, expected one below 1",
    );
    refused(
        |p| p.steps[0] = Step::Section(SectionId(1)),
        "step 0: there is no section 1, expected one below 1",
    );
    refused(
        |p| exchange(p).source = SourceId(7),
        "step 2: there is no source 7, expected one below 1",
    );
    let stream = StreamId(2);
    refused(
        |p| transfer(p, 1)[0] = Transfer::HostRead { stream, var: X },
        "step 1 (`all`): there is no stream 2, expected one below 2",
    );
    let buffer = RemoteBufferId(1);
    refused(
        |p| transfer(p, 16)[0] = Transfer::RemoteStore { buffer, var: X },
        "step 16 (`all`): there is no remote buffer 1, expected one below 1",
    );
}

#[test]
fn ipus_are_those_of_the_replica() {
    refused(
        |p| p.vars[FAR].ipu = IpuId(8),
        "variable `far`: there is no IPU of the replica 8, expected one below 8",
    );
    refused(
        |p| exchange(p).ipu = IpuId(8),
        "step 2 (`all`): there is no IPU of the replica 8, expected one below 8",
    );
    let (mut program, machine) = (good(), machine());
    (program.n_ipus, program.n_replicas) = (u32::MAX, u32::MAX);
    let error = program.verify(&machine).unwrap_err();
    assert!(
        matches!(error, VerifyError::Replicas(ReplicaError::DontFit { .. })),
        "{error}"
    );
    program.n_replicas = 0;
    assert_eq!(program.verify(&machine), Err(ReplicaError::None.into()));
}

#[test]
fn layouts_give_every_element_a_place() {
    let axis = "layout 10: axis 0: expected parts that follow each other from index 0 and fill \
                their places in order, none of them empty";
    refused(|p| lay(p, WIDE, |l| l.axes[0].ranges[1].begin = 9), axis);
    refused(|p| lay(p, WIDE, |l| l.axes[0].ranges[1].place = 7), axis);
    refused(|p| lay(p, WIDE, |l| l.axes[0].ranges[1].local = 1), axis);
    refused(|p| lay(p, WIDE, |l| l.axes[0].places[1].extent = 9), axis);
    refused(|p| lay(p, WIDE, |l| l.axes[0] = AxisSplit::whole(0)), axis);
    refused(
        |p| lay(p, WIDE, |l| l.axes[0].ranges[0].len = u32::MAX),
        axis,
    );
    let copies = "layout 10: expected copies at tile offsets that ascend from 0";
    refused(|p| lay(p, WIDE, |l| l.copies = vec![]), copies);
    refused(|p| lay(p, WIDE, |l| l.copies = vec![0, 2, 2]), copies);
    let order = |axis: u32| {
        format!(
            "layout 10: axis {axis}: expected storage loops whose blocks divide each other and \
             end with 1, on axes that there are"
        )
    };
    let of = |axis, block| StorageLoop { axis, block };
    refused(|p| lay(p, WIDE, |l| l.order = vec![]), &order(0));
    refused(|p| lay(p, WIDE, |l| l.order = vec![of(0, 0)]), &order(0));
    refused(|p| lay(p, WIDE, |l| l.order.push(of(3, 1))), &order(3));
    let blocks = vec![of(0, 4), of(0, 3), of(0, 1)];
    refused(|p| lay(p, WIDE, |l| l.order = blocks), &order(0));
}

#[test]
fn boxes_have_tiles_of_their_own() {
    refused(
        |p| lay(p, WIDE, |l| l.first_tile = 31),
        "layout 10: expected at most 32 tiles, got 33",
    );
    refused(
        |p| lay(p, WIDE, |l| l.first_tile = u32::MAX),
        "layout 10: expected at most 32 tiles, got 4294967297",
    );
    refused(
        |p| lay(p, WIDE, |l| l.copies = vec![0, 1]),
        "layout 10: expected one box on tile 1, got two: move its axes or copies apart",
    );
    refused(
        |p| lay(p, WIDE, |l| l.axes = vec![AxisSplit::whole(1 << 31)]),
        "layout 10: expected at most 4294967295 bytes of a box, got 8589934592",
    );
    let huge = vec![AxisSplit::whole(u32::MAX); 2];
    refused(
        |p| lay(p, WIDE, |l| *l = Layout::row_major(huge)),
        "layout 10: expected at most 4294967295 bytes of a box, got 18446744073709551615",
    );
}

#[test]
fn calls_come_to_an_end() {
    refused(
        |p| p.functions[FunctionId(0)].steps = vec![Step::Call(FunctionId(0))],
        "function `square`: expected calls that come to an end, but it calls itself",
    );
    refused(
        |p| {
            let steps = vec![Step::Call(FunctionId(0))];
            let body = vec![Step::Call(p.functions.push(Function {
                name: "back".into(),
                steps,
            }))];
            let repeat = Step::Repeat { count: 2, body };
            p.functions[FunctionId(0)].steps.push(repeat);
        },
        "function `square`: expected calls that come to an end, but it calls itself",
    );
}

#[test]
fn a_stream_has_one_size_one_way_and_one_ipu() {
    refused(
        |p| p.streams[StreamId(0)].buffering_depth = 0,
        "stream `comes`: expected a buffering depth of at least 1",
    );
    let mixed = |other| {
        format!(
            "stream `comes`: expected elements of one size that pass one way on one IPU: `x` and \
             `{other}` differ; use a stream for each"
        )
    };
    let stream = StreamId(0);
    let read = |var| Transfer::HostRead { stream, var };
    refused(|p| transfer(p, 1).push(read(C)), &mixed("c"));
    refused(|p| transfer(p, 18)[0] = read(FAR), &mixed("far"));
    let write = Transfer::HostWrite { stream, var: X };
    refused(|p| transfer(p, 1).push(write), &mixed("x"));
    // Another layout of as many elements is the same to a host.
    let (mut program, machine) = (good(), machine());
    transfer(&mut program, 1).push(read(WIDE));
    assert_eq!(program.verify(&machine), Ok(()));
}

#[test]
fn a_buffer_lies_beside_one_gateway() {
    let buffer = RemoteBufferId(0);
    refused(
        |p| transfer(p, 17)[0] = Transfer::RemoteLoad { buffer, var: FAR },
        "buffer `buffer`: expected users on one IPU-Machine, got IPU 0 and IPU 5 of replica 0: a \
         buffer lies beside the gateway of one; copy its variable between the IPUs",
    );
    refused(
        |p| p.remote_buffers[buffer].bytes = Bytes(31),
        "step 16 (`all`): expected a buffer of at least 32 B for `x`, got 31 B in `buffer`",
    );
    // IPUs of one IPU-Machine may share.
    let (mut program, machine) = (good(), machine());
    program.vars[FAR].ipu = IpuId(3);
    transfer(&mut program, 17)[0] = Transfer::RemoteLoad { buffer, var: FAR };
    assert_eq!(program.verify(&machine), Ok(()));
}

#[test]
fn vertices_have_what_they_read() {
    refused(
        |p| group(p, 5).inputs.truncate(1),
        "step 5 (`all`): expected 2 inputs of a matrix product, got 1",
    );
    let sum = Vertex::Map(MapOp::Binary(BinaryFn::Add));
    refused(
        |p| match &mut p.functions[FunctionId(0)].steps[0] {
            Step::Compute(set) => set.vertices[0].vertex = sum,
            other => unreachable!("{other:?} is no compute set"),
        },
        "step 0 of function `square` (`all`): expected 2 inputs of a map, got 1",
    );
    refused(
        |p| group(p, 5).output.labels.truncate(1),
        "step 5 (`all`): expected a label for each of the 2 axes of `c`, no two alike",
    );
    refused(
        |p| group(p, 5).output.labels = smallvec![Label(0), Label(0)],
        "step 5 (`all`): expected a label for each of the 2 axes of `c`, no two alike",
    );
    refused(
        |p| match &mut group(p, 5).vertex {
            Vertex::MatMul { input, .. } => *input = Label(9),
            _ => unreachable!("step 5 is a product"),
        },
        "step 5 (`all`): expected Label(9) among the channels of the first input of a matrix \
         product: label the operands as the vertex reads them",
    );
    refused(
        |p| match &mut group(p, 5).vertex {
            Vertex::MatMul { input_group, .. } => *input_group = 0,
            _ => unreachable!("step 5 is a product"),
        },
        "step 5 (`all`): expected input channels of a block of a matrix product of at least 1",
    );
    refused(
        |p| p.vars[C].dtype = DType::U32,
        "step 5 (`all`): expected element types that a matrix product exists for, got [U32, F16, \
         F16]: cast first",
    );
    refused(
        |p| group(p, 3).output.labels[0] = Label::WHOLE,
        "step 3 (`all`): expected `a` to be labelled along all axes, as it is written",
    );
    refused(
        |p| match &mut p.steps[3] {
            Step::Compute(set) => set.ipu = IpuId(1),
            other => unreachable!("{other:?} is no compute set"),
        },
        "step 3 (`all`): expected `a` on IPU 1, got IPU 0: copy it between the IPUs first",
    );
    refused(
        |p| {
            let again = group(p, 3).clone();
            match &mut p.steps[3] {
                Step::Compute(set) => set.vertices.push(again),
                other => unreachable!("{other:?} is no compute set"),
            }
        },
        "step 3 (`all`): `a` is written by one vertex group and used by another: use two compute \
         sets",
    );
}

#[test]
fn operands_lie_where_their_vertex_runs() {
    refused(
        |p| lay(p, INDEX, |l| l.first_tile = 1),
        "step 9 (`all`): `index` has no box on tile 0, where `rows` is written: exchange it first",
    );
    refused(
        |p| lay(p, INDEX, |l| l.axes = vec![AxisSplit::whole(4)]),
        "step 9 (`all`): `index` doesn't cover the indices of the other operands on tile 0: \
         exchange it to their layout first",
    );
    // The same indices in other runs are the same.
    let (mut program, machine) = (good(), machine());
    lay(&mut program, INDEX, |layout| {
        layout.axes = vec![AxisSplit::from_runs([(0, 1, 0), (1, 2, 0)])];
    });
    assert_eq!(program.verify(&machine), Ok(()));
}

#[test]
fn exchanges_are_between_views_that_fit() {
    refused(
        |p| exchange(p).ipu = IpuId(5),
        "step 2 (`all`): expected `x` on IPU 5, got IPU 0: copy it between the IPUs first",
    );
    refused(
        |p| exchange(p).copies[0].dst = p.view(FAR),
        "step 2 (`all`): expected `far` on IPU 0, got IPU 5: copy it between the IPUs first",
    );
    refused(
        |p| p.vars[WIDE].dtype = DType::F32,
        "step 2 (`all`): expected one element type of `x` and `wide`: cast one of them first",
    );
    refused(
        |p| exchange(p).copies[0].dst = p.view(SHARD),
        "step 2 (`all`): expected views of equal extents with digits that divide each other, got \
         [16] of `x` and [8] of `shard`",
    );
    let broken =
        "step 2 (`all`): expected a view of what `x` has, got axes or indices that it lacks";
    refused(|p| exchange(p).copies[0].src.shape.offsets[0] = 1, broken);
    refused(
        |p| exchange(p).copies[0].src.shape.axes[0][0].axis = 1,
        broken,
    );
    refused(
        |p| exchange(p).copies[0].src.shape.axes[0][0].stride = u32::MAX,
        broken,
    );
}

#[test]
fn copies_between_ipus_are_of_equal_variables_on_two() {
    let copy = |src, dst| Step::IpuCopies {
        source: SourceId(0),
        copies: vec![IpuCopy { src, dst }],
    };
    refused(
        |p| p.steps.push(copy(X, X)),
        "step 19 (`all`): expected `x` on another IPU than `x`: use an exchange",
    );
    refused(
        |p| p.steps.push(copy(WIDE, FAR)),
        "step 19 (`all`): expected one layout of `wide` and `far`: exchange one of them first",
    );
    refused(
        |p| p.vars[FAR].dtype = DType::F32,
        "step 15 (`all`): expected one element type of `x` and `far`: cast one of them first",
    );
}

#[test]
fn collectives_stay_on_their_ipu_and_share_evenly() {
    let step = |kind, src, dst| {
        Step::Collective(Collective {
            source: SourceId(0),
            kind,
            tensors: vec![CollectiveTensor { src, dst }],
        })
    };
    refused(
        |p| p.steps.push(step(CollectiveKind::AllReduce, X, FAR)),
        "step 19 (`all`): expected `far` on IPU 0, got IPU 5: copy it between the IPUs first",
    );
    refused(
        |p| p.steps.push(step(CollectiveKind::AllReduce, X, WIDE)),
        "step 19 (`all`): expected one layout of `x` and `wide`: exchange one of them first",
    );
    refused(
        |p| p.steps.push(step(CollectiveKind::TakeShard, X, X)),
        "step 19 (`all`): expected 2 elements of shard `x` on tile 0, a replica's share of `x`, \
         got 4",
    );
    refused(
        |p| p.steps.push(step(CollectiveKind::AllGather, WIDE, X)),
        "step 19 (`all`): expected 2 elements of shard `wide` on tile 0, a replica's share of \
         `x`, got 8",
    );
}

#[test]
fn runs_end_before_cycles_are_lost_count_of() {
    refused(
        |p| {
            let body = std::mem::take(&mut p.steps);
            let repeat = |body| Step::Repeat {
                count: u32::MAX,
                body,
            };
            p.steps = vec![repeat(vec![repeat(vec![repeat(body)])])];
        },
        "the program: expected a run of at most 4611686018427387904 cycles, got more: repeat less",
    );
}
