use proptest::prelude::*;

use super::*;
use crate::testing::{every_kind, graphs, single};
use crate::verify::{Form, verify};

const SAMPLE: &str = r#"part0 = "Layer3" repeated
part1 = "Attention" in part0
variable %0: f16[8,16] = truncated_normal(0.0, 0.02) part1 "Out"
stream %1: f16[4,8] "x"
constant %3: f32[] = splat(1e-7) "c"
%2: f16[4,16] = matmul(%1, %0) {pass: training_fwd, proportion: 0.25, partials: half} @ipu1 stage1 part1 fwd recompute scores "Layer3/Out"
%4 "y" part0: f16[4,16], %5: f32[4], %6: f32[4] = layer_norm(%2, %7, %7) {epsilon: 0.001} upd "a \"b\"\\\n"
variable %7: f16[16] "gamma"
inputs %1
outputs %4, %6
update %0 = %0
"#;

#[test]
fn a_graph_prints_as_it_is_read() {
    let graph = parse(SAMPLE).unwrap();
    assert_eq!(graph.tensors[TensorId(5)].name, "a \"b\"\\\n");
    let printed = print(&graph);
    assert_eq!(parse(&printed).unwrap(), graph);
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&printed), sorted(SAMPLE));
}

#[test]
fn every_kind_returns() {
    for (kind, operands) in every_kind() {
        let graph = single(kind, &operands);
        let text = print(&graph);
        assert_eq!(parse(&text).as_ref(), Ok(&graph), "{text}");
    }
}

proptest! {
    #[test]
    fn random_graphs_return(graph in graphs()) {
        prop_assert_eq!(verify(&graph, Form::Logical), Ok(()));
        let text = print(&graph);
        prop_assert_eq!(parse(&text), Ok(graph), "{}", text);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[a-z0-9%:=(){}\\[\\]\", \n-]{0,60}") {
        let _ = parse(&text);
    }

    #[test]
    fn damaged_text_is_read_or_refused(cut in 0..SAMPLE.len(), length in 1..4_usize) {
        let end = (cut + length).min(SAMPLE.len());
        let damaged = format!("{}{}", &SAMPLE[..cut], &SAMPLE[end..]);
        if let Ok(graph) = parse(&damaged) {
            prop_assert_eq!(parse(&print(&graph)), Ok(graph));
        }
    }
}

#[test]
fn malformed_graphs_print() {
    let mut graph = parse(SAMPLE).unwrap();
    graph
        .ops
        .values_mut()
        .for_each(|op| op.outputs.push(TensorId(99)));
    assert!(print(&graph).contains("%99: missing"));
}

#[test]
fn mistakes_name_the_line() {
    #[track_caller]
    fn check(text: &str, message: &str) {
        assert_eq!(parse(text).unwrap_err().to_string(), message);
    }
    check(
        "\nfunction",
        "line 2: expected a part, a tensor, an operation, inputs, outputs or an update, got `function`",
    );
    check(
        "part1 = \"Layer0\"",
        "line 1: expected parts that differ, numbered from 0, got `part1`",
    );
    check(
        "part0 = \"Attention\" in part0",
        "line 1: expected a part that has been introduced, got `part0`",
    );
    check(
        "stream %0: f64[2] \"x\"",
        "line 1: expected f16, f32 or u32, got `f64`",
    );
    check(
        "stream %0: f16[2]",
        "line 1: expected a name in quotes, got ``",
    );
    check(
        "stream %0: f16[2] \"x",
        "line 1: expected a name that ends with a quote, got `\"x`",
    );
    check(
        "stream %1: f16[2] \"x\"\noutputs %1, %0",
        "line 2: expected a line for every tensor that is used, got `%0`",
    );
    check(
        "stream %0: f16[2] \"x\"\nstream %0: f16[2] \"x\"",
        "line 2: expected an id that is not taken, got `%0`",
    );
    check(
        "%0: f16[2] = convolve() fwd \"x\"",
        "line 1: expected an operation, got `convolve`",
    );
    check(
        "%0: f16[2] = scale(%0) fwd \"x\"",
        "line 1: expected factor, got ``",
    );
    check(
        "%0: f16[2] = identity(%0) {factor: 2} fwd \"x\"",
        "line 1: expected only attributes of this operation, got `factor`",
    );
    check(
        "%0: f16[2] = scale(%0) {factor: fast} fwd \"x\"",
        "line 1: expected a finite number, got `factor`",
    );
    check(
        "%0: f16[2] = scale(%0) {factor: 1e999} fwd \"x\"",
        "line 1: expected a finite number, got `factor`",
    );
    check(
        "%0: f16[2] = identity(%0) sideways \"x\"",
        "line 1: expected a phase, got `sideways`",
    );
    check(
        "inputs %0 %1",
        "line 1: expected the end of the line, got `%1`",
    );
}
