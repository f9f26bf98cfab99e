//! The lowered program computes what the evaluator says.

mod joint;
mod pipeline;

use std::collections::{BTreeMap, BTreeSet};

use expect_test::expect;
use ipu_sim::cost::partials::reduce_stages;
use ipu_sim::execute::{self, Host, Memory, RemoteMemory, StreamError};
use ipu_sim::ids::{IpuId, ReplicaId};
use ipu_sim::numerics::DType;
use ipu_sim::program::{Role, SourceId, Step, StreamId};
use ipu_sim::spec::MachineSpec;
use ipu_sim::vertex::{MapOp, Vertex};
use proptest::prelude::*;

use super::{HostOptions, HostStreams, Lowered, OutputReturn, Prefetch, RunStart};
use crate::eval::{EvalOptions, Inputs, Value, eval};
use crate::ir::{
    BinaryFn, Constant, Graph, MatMulPass, MemoryProportion, OpId, OpKind, Partials, Piece, Scope,
    Shape, TensorId, TensorKind, TensorType,
};
use crate::passes::{Inference, Outlining, Pipelining, Watch};
use crate::plan::{PlanCache, Splits};
use crate::session::{Compiled, Purpose, SessionOptions, compile};
use crate::testing::{every_kind, graphs, sample_inputs, single};

fn small(tiles: u32) -> MachineSpec {
    let machine = MachineSpec::shipped("mk2-m2000").expect("the description ships");
    machine.scaled_down(1, tiles).expect("a smaller machine")
}

/// Streams from and to the evaluator's values.
struct Values<'a> {
    lowered: &'a Lowered,
    inputs: &'a Inputs,
    received: BTreeMap<TensorId, Vec<f64>>,
}

fn floats(value: &Value) -> Vec<f64> {
    match value {
        Value::Float(elements) => elements.clone(),
        Value::Int(elements) => elements.iter().map(|&element| f64::from(element)).collect(),
    }
}

impl Host for Values<'_> {
    fn read(&mut self, replica: ReplicaId, stream: StreamId) -> Result<Vec<f64>, StreamError> {
        let inputs = &self.lowered.inputs;
        let (tensor, _) = inputs
            .iter()
            .find(|(_, id)| *id == stream)
            .ok_or(StreamError::NotConnected)?;
        Ok(floats(self.inputs[tensor].on(replica.0 as usize)))
    }

    fn write(
        &mut self,
        _: ReplicaId,
        stream: StreamId,
        values: Vec<f64>,
    ) -> Result<(), StreamError> {
        let outputs = &self.lowered.outputs;
        let (tensor, _) = outputs
            .iter()
            .find(|(_, id)| *id == stream)
            .ok_or(StreamError::NotConnected)?;
        self.received.insert(*tensor, values);
        Ok(())
    }
}

/// What the host has to do with the programs of these tests: every output leaves.
fn host(streams: HostStreams) -> HostOptions {
    HostOptions {
        streams,
        prefetch: Prefetch::Ahead(1),
        outputs_buffered: 1,
        outputs: OutputReturn::All,
        start: RunStart::Unasked,
    }
}

/// What a session makes of a graph for one micro-batch, forward.
fn forward(
    graph: &Graph,
    machine: &MachineSpec,
    streams: HostStreams,
    plans: &PlanCache,
) -> Compiled {
    let options = SessionOptions {
        purpose: Purpose::Inference(Inference {
            pipelining: Pipelining::Off,
            replicas: 1,
            micro_batches: 1,
            outlining: Outlining::On,
        }),
        host: host(streams),
    };
    compile(graph.clone(), &options, machine, plans, Watch::nobody()).unwrap()
}

/// The program of a graph whose operations are all put on IPU 0, of `tiles` tiles.
fn on_one_ipu(graph: &Graph, tiles: u32, streams: HostStreams) -> Lowered {
    let mut graph = graph.clone();
    for op in graph.ops.values_mut() {
        op.ipu = Some(IpuId(0));
    }
    let machine = small(tiles);
    let plans = PlanCache::new(machine.tile.clone());
    forward(&graph, &machine, streams, &plans).lowered
}

/// Vertices of what a text says, all of it on one IPU, in order.
fn vertices(text: &str) -> Vec<Vertex> {
    let graph = crate::text::parse(text).unwrap();
    let program = on_one_ipu(&graph, 16, HostStreams::Grouped).program;
    let sets = program.steps.iter().filter_map(|step| match step {
        Step::Compute(set) => Some(set.vertices.clone()),
        _ => None,
    });
    sets.flatten().map(|group| group.vertex).collect()
}

#[test]
fn dropout_puts_the_seeds_of_workers_back() {
    let found = vertices(
        r#"stream %0: f16[64,32] "x"
stream %1: u32[2] "seed"
%2: f16[64,32] = dropout(%0, %1) {probability: 0.1, id: 0} @ipu0 fwd "mask"
inputs %0, %1
outputs %2
"#,
    );
    let words = found.iter().map(|vertex| match vertex {
        Vertex::WorkerSeeds(step) => format!("{step:?}"),
        Vertex::Map(_) => "mask".into(),
        other => format!("{other:?}"),
    });
    let words: Vec<String> = words.collect();
    assert_eq!(words, ["Copy", "Copy", "Save", "Set", "mask", "Restore"]);
}

/// Two slices of a product, both of which are wanted by columns.
#[test]
fn slices_of_one_variable_are_transposed_once() {
    let product = "{pass: inference_fwd, proportion: 0.6, partials: half}";
    let found = vertices(&format!(
        r#"stream %0: f16[64,64] "x"
variable %1: f16[64,128] "w"
%2: f16[64,128] = matmul(%0, %1) {product} @ipu0 fwd "both"
%3: f16[64,64] = slice(%2) {{axis: 1, begin: 0, end: 64}} @ipu0 fwd "q"
%4: f16[64,64] = slice(%2) {{axis: 1, begin: 64, end: 128}} @ipu0 fwd "k"
%5: f16[64,64] = transpose(%4) {{perm: [1,0]}} @ipu0 fwd "k"
%6: f16[64,64] = matmul(%3, %5) {product} @ipu0 fwd "scores"
inputs %0
outputs %6
"#
    ));
    let is_product = |vertex: &Vertex| matches!(vertex, Vertex::MatMul { .. });
    let scores = found.iter().rposition(is_product).unwrap();
    let copies = found[..scores].iter();
    let copies = copies.filter(|vertex| **vertex == Vertex::Copy).count();
    assert_eq!(copies, 1, "{found:?}");
}

/// Lowers `graph` for one IPU of `tiles` tiles, runs it and compares every output.
fn check(graph: Graph, tiles: u32, tolerance: f64) {
    check_with(graph, tiles, tolerance, HostStreams::Grouped);
}

/// The same with the host at other times; without it, that the program runs.
fn check_with(graph: Graph, tiles: u32, tolerance: f64, streams: HostStreams) {
    let lowered = on_one_ipu(&graph, tiles, streams);
    let inputs = sample_inputs(&graph, 1);
    let mut memory = Memory::new(&lowered.program).unwrap();
    let mut remote = RemoteMemory::new(&lowered.program);
    for (tensor, view) in &lowered.variables {
        let resident = match graph.tensors[*tensor].kind {
            TensorKind::Variable { .. } => true,
            TensorKind::Stream => streams == HostStreams::Absent,
            TensorKind::Constant(_) | TensorKind::Activation => false,
        };
        assert!(resident);
        let values = arranged(&lowered, view, &floats(inputs[tensor].on(0)));
        memory.write(ReplicaId(0), view.var, &values).unwrap();
    }
    for &(var, constant) in &lowered.constants {
        let n = lowered.program.elements_of(var).0;
        let values: Vec<f64> = match constant {
            Constant::Splat(value) => vec![value; n as usize],
            Constant::Iota => (0..n).map(|index| index as f64).collect(),
        };
        memory.write(ReplicaId(0), var, &values).unwrap();
    }
    let mut host = Values {
        lowered: &lowered,
        inputs: &inputs,
        received: BTreeMap::new(),
    };
    execute::run(&mut memory, &mut host, &mut remote).unwrap_or_else(|error| {
        panic!("{error}\n{}", crate::text::print(&graph));
    });
    if streams == HostStreams::Absent {
        assert!(lowered.program.streams.is_empty() && host.received.is_empty());
        return;
    }
    let options = EvalOptions {
        round_to_dtype: false,
        replicas: 1,
    };
    let expected = eval(&graph, &inputs, options).unwrap();
    for &output in &graph.outputs {
        let tensor = &graph.tensors[output];
        let tolerance = match tensor.dtype {
            DType::F16 => 3e-2,
            DType::F32 | DType::U32 => tolerance,
        };
        let got = &host.received[&output];
        let wanted = floats(expected[output].on(0));
        assert_eq!(got.len(), wanted.len());
        for (index, (got, &wanted)) in got.iter().zip(&wanted).enumerate() {
            let wanted = tensor.dtype.round(wanted);
            let close = (got - wanted).abs() <= tolerance * (1.0 + wanted.abs());
            let same = got.is_nan() && wanted.is_nan() || *got == wanted;
            assert!(
                close || same,
                "`{}` at {index}: {got}, expected {wanted}\n{}",
                tensor.name,
                crate::text::print(&graph)
            );
        }
    }
}

/// The row-major elements of a tensor in the row-major order of its variable.
fn arranged(lowered: &Lowered, view: &ipu_sim::view::View, values: &[f64]) -> Vec<f64> {
    let shape = lowered.program.shape_of(view.var);
    let extents = view.shape.extents();
    let mut out = vec![0.0; values.len()];
    for (number, &value) in values.iter().enumerate() {
        let mut rest = number as u32;
        let mut index = vec![0; extents.len()];
        for (axis, &extent) in extents.iter().enumerate().rev() {
            index[axis] = rest % extent;
            rest /= extent;
        }
        let at = view.shape.locate(&index);
        let place = at
            .iter()
            .zip(&shape)
            .fold(0, |sum, (&at, &extent)| sum * extent + at);
        out[place as usize] = value;
    }
    out
}

#[test]
fn every_kind_of_operation_computes_its_values() {
    for (kind, operands) in every_kind() {
        let graph = single(kind, &operands);
        let single_device = graph.ops.values().all(|op| {
            !matches!(
                op.kind,
                OpKind::IpuCopy { .. }
                    | OpKind::Stash { .. }
                    | OpKind::Restore { .. }
                    | OpKind::AllReduce
                    | OpKind::ReduceScatter { .. }
                    | OpKind::AllGather { .. }
                    | OpKind::Multi { .. }
                    | OpKind::LocalSlice { .. }
                    | OpKind::RemoteLoad
                    | OpKind::RemoteStore
            )
        });
        if single_device {
            for tiles in [2, 4, 32] {
                check(graph.clone(), tiles, 1e-5);
            }
            for streams in [HostStreams::WhereNeeded, HostStreams::Absent] {
                check_with(graph.clone(), 4, 1e-5, streams);
            }
        }
    }
}

/// The host's transfers among the steps of a micro-batch: how many at once, and `-` for what
/// lies between.
fn transfers(streams: HostStreams) -> String {
    let scope = Scope {
        ipu: Some(IpuId(0)),
        ..Scope::named("op")
    };
    let mut graph = Graph::default();
    let [a, b] = ["a", "b"].map(|name| graph.stream(name, DType::F32, Shape::from([8])));
    let c = graph
        .add(OpKind::Scale { factor: 2.0 }, &[a], &scope)
        .unwrap();
    let d = graph.add(OpKind::Binary(BinaryFn::Add), &[c, b], &scope);
    graph.outputs.push(d.unwrap());
    let lowered = on_one_ipu(&graph, 4, streams);
    // Where a stretch of the program begins is no step of the device.
    let steps = lowered.program.steps.iter();
    let steps = steps.filter(|step| !matches!(step, Step::Section(_)));
    let mut words: Vec<String> = steps
        .map(|step| match step {
            Step::Transfers { transfers, .. } => transfers.len().to_string(),
            _ => "-".into(),
        })
        .collect();
    words.dedup_by(|word, before| word == "-" && before == "-");
    words.join(" ")
}

#[test]
fn the_host_is_asked_once_or_where_its_data_is_needed_or_never() {
    assert_eq!(transfers(HostStreams::Grouped), "2 - 1");
    assert_eq!(transfers(HostStreams::WhereNeeded), "1 - 1 - 1");
    assert_eq!(transfers(HostStreams::Absent), "-");
}

proptest! {
    #[test]
    fn random_graphs_compute_their_values(graph in graphs()) {
        // Chains of operations lose digits to cancellation in f32, in variances above all.
        check(graph, 16, 1e-2);
    }
}

/// A product on `tiles` tiles, with operands of type `dtype` and little or much memory; gives how
/// it was cut.
fn check_product(shapes: [&[u32]; 2], dtype: DType, proportion: f64, tiles: u32) -> Splits {
    let (graph, splits) = product(shapes, (dtype, Partials::Half), proportion, tiles);
    check(graph, tiles, 1e-5);
    splits
}

/// The graph of such a product, and how it is cut.
fn product(
    shapes: [&[u32]; 2],
    (dtype, partials): (DType, Partials),
    proportion: f64,
    tiles: u32,
) -> (Graph, Splits) {
    let kind = OpKind::MatMul {
        pass: MatMulPass::TrainingFwd,
        available_memory_proportion: MemoryProportion::new(proportion).unwrap(),
        partials,
        piece: Piece::Whole,
    };
    let operands = shapes.map(|shape| TensorType::new(dtype, Shape(shape.into())));
    let graph = single(kind, &operands);
    let plans = PlanCache::new(small(tiles).tile);
    super::products::plan_products(&graph, &plans).unwrap();
    let (request, _) = super::products::plan_request(&graph, &graph.ops[OpId(0)]).unwrap();
    let splits = plans.get(&request).unwrap().splits;
    (graph, splits)
}

/// What the steps of a product do for it, by their vertices, each once.
fn roles_of_product(graph: &Graph, tiles: u32) -> BTreeSet<(&'static str, Role)> {
    fn look(steps: &[Step], found: &mut impl FnMut(SourceId, &Vertex)) {
        for step in steps {
            match step {
                Step::Compute(set) => set
                    .vertices
                    .iter()
                    .for_each(|group| found(set.source, &group.vertex)),
                Step::Repeat { body, .. } => look(body, found),
                _ => {}
            }
        }
    }
    let program = on_one_ipu(graph, tiles, HostStreams::Absent).program;
    let mut roles = BTreeSet::new();
    look(&program.steps, &mut |source, vertex| {
        let word = match vertex {
            Vertex::MatMul { .. } => "product",
            Vertex::ReducePartials { .. } => "sum",
            Vertex::Map(MapOp::ScaledAdd { .. }) => "sum of serial parts",
            Vertex::Map(MapOp::Cast) => "cast",
            Vertex::Fill(_) => "zeros",
            Vertex::DynamicSlice { .. } => "slice",
            Vertex::DynamicUpdate { .. } => "update",
            Vertex::Map(MapOp::Count { .. }) => "count",
            Vertex::Copy => "transpose",
            Vertex::Assemble => "assembly",
            other => panic!("no vertex of a product: {other:?}"),
        };
        roles.insert((word, program.source(source).role));
    });
    roles
}

/// Steps of products whose parts are in one place or several, at once or one after the other.
#[test]
fn steps_of_a_product_say_what_they_do_for_it() {
    let cases = [
        ("parts of k", [64, 96, 128], Partials::Half, 0.6, 48),
        ("float partials", [512, 64, 64], Partials::Float, 0.6, 48),
        ("serial o", [64, 96, 128], Partials::Half, 0.001, 8),
        ("serial k", [4, 64, 16], Partials::Half, 0.001, 4),
    ];
    let found = cases.map(|(name, [m, k, n], partials, proportion, tiles)| {
        let shapes: [&[u32]; 2] = [&[m, k], &[k, n]];
        let (graph, splits) = product(shapes, (DType::F16, partials), proportion, tiles);
        let (k, o) = (splits.in_channels.serial, splits.out_channels.serial);
        assert_eq!((k > 1, o > 1), (name == "serial k", name == "serial o"));
        let roles = roles_of_product(&graph, tiles);
        let roles = roles
            .iter()
            .map(|(word, role)| format!("  {role:?}: {word}\n"));
        format!("{name}\n{}", roles.collect::<String>())
    });
    expect![[r#"
        parts of k
          Layout: assembly
          Work: product
          Reduction: sum
          Layout: transpose
        float partials
          Layout: assembly
          Reduction: cast
          Work: product
          Layout: transpose
        serial o
          Layout: assembly
          Slicing: count
          Work: product
          Slicing: slice
          Reduction: sum
          Layout: transpose
          Slicing: update
          Slicing: zeros
        serial k
          Layout: assembly
          Slicing: count
          Work: product
          Slicing: slice
          Reduction: sum
          Reduction: sum of serial parts
          Layout: transpose
          Reduction: zeros
          Slicing: zeros
    "#]]
    .assert_eq(&found.concat());
}

/// Where partial sums come from many tiles they are summed in two stages and three, and what
/// doesn't fill the last group of a stage is summed as well.
#[test]
fn deep_sums_compute_their_values_in_stages() {
    let mut depths = BTreeSet::new();
    for (m, k, n, tiles) in [
        (1, 592, 2, 60),
        (3, 768, 4, 38),
        (2, 2080, 4, 140),
        // 145 and 151 parts, of which a single one is left over, and then none or several.
        (16, 6960, 16, 160),
        (16, 7248, 16, 160),
        (2, 20000, 1, 300),
    ] {
        let splits = check_product([&[m, k], &[k, n]], DType::F32, 0.6, tiles);
        depths.insert(splits.in_channels.parallel);
    }
    let in_stages = |stages| {
        depths
            .iter()
            .filter(|&&d| reduce_stages(d).len() == stages)
            .count()
    };
    assert!(
        [2, 3].map(in_stages).iter().all(|&count| count > 1),
        "{depths:?}"
    );
}

#[test]
fn addends_of_a_product_are_summed_in_f32_and_cast() {
    let piece = "{pass: training_fwd, proportion: 0.25, partials: float, piece: addend}";
    let text = format!(
        r#"stream %0: f16[8,32] "a"
stream %1: f16[8,32] "b"
variable %2: f16[32,16] "wa"
variable %3: f16[32,16] "wb"
%4: f32[8,16] = matmul(%0, %2) {piece} fwd "a"
%5: f32[8,16] = matmul(%1, %3) {piece} fwd "b"
%6: f32[8,16] = add(%4, %5) fwd "sum"
%7: f16[8,16] = cast(%6) {{to: f16}} fwd "cast"
inputs %0, %1
outputs %7
"#
    );
    for tiles in [2, 8, 48] {
        check(crate::text::parse(&text).unwrap(), tiles, 1e-5);
    }
}

#[test]
fn products_of_all_kinds_compute_their_values() {
    let mut any_serial = false;
    for dtype in [DType::F32, DType::F16] {
        for tiles in [2, 8, 48] {
            for proportion in [0.6, 0.004, 0.001] {
                any_serial |= check_product([&[64, 96], &[96, 128]], dtype, proportion, tiles)
                    .iterations()
                    > 1;
                any_serial |= check_product([&[40, 24], &[24, 72]], dtype, proportion, tiles)
                    .iterations()
                    > 1;
                check_product([&[2, 3, 16, 8], &[2, 3, 8, 16]], dtype, proportion, tiles);
                check_product([&[5, 2], &[2, 64]], dtype, proportion, tiles);
                check_product([&[1, 64], &[64, 2]], dtype, proportion, tiles);
                check_product([&[24, 1], &[1, 20]], dtype, proportion, tiles);
                check_product([&[9, 3], &[3, 7]], dtype, proportion, tiles);
                check_product([&[16, 8, 4], &[16, 4, 1]], dtype, proportion, tiles);
            }
        }
    }
    assert!(any_serial, "no plan had a serial split");
}
