//! What parts of a model take, against the whole and against each other.

use ipu_sim::units::Bytes;
use ipu_sim::weigh::{self, Category};
use popart_graph::ir::PartId;

use super::*;

/// The part of that name, below all those that are in none or in the part before it.
fn find(profile: &Profile, path: &[&str]) -> PartId {
    let found = path.iter().fold(None, |within, name| {
        let mut parts = profile.parts.iter();
        let found = parts.find(|(_, part)| part.name == *name && part.within == within);
        Some(found.expect("the model has such a part").0)
    });
    found.expect("the path names a part")
}

#[test]
fn parts_add_up_to_what_is_in_them_and_to_the_step() {
    let words = pipelined("--num-layers 2 --layers-per-ipu 1 1 --gradient-accumulation-factor 8");
    let case = Case::new(&words);
    let (found, timeline) = case.explain(engine::Mode::Folded);
    let Compiled {
        program, profile, ..
    } = &case.compiled;
    let cycles = |part| part::cycles(program, profile, &timeline, part);
    let layer = find(profile, &["Layer1"]);
    let halves = ["Attention", "FF"].map(|half| cycles(find(profile, &["Layer1", half])));
    for ipu in &found.ipus {
        let mut sum = Causes::default();
        for half in &halves {
            sum.add_all(&half[IpuId(ipu.ipu)]);
        }
        let whole = &cycles(layer)[IpuId(ipu.ipu)];
        assert_eq!(*whole, sum, "a layer is its halves");
        let printed = ipu.by_layer.get("Layer1").cloned().unwrap_or_default();
        assert_eq!(*whole, printed, "as the report says");
        let outermost = profile
            .parts
            .iter()
            .filter(|(_, part)| part.within.is_none());
        let all: Cycles = outermost
            .map(|(part, _)| cycles(part)[IpuId(ipu.ipu)].total())
            .sum();
        let busy: Cycles = Cause::ALL
            .into_iter()
            .filter(|cause| !cause.is_idle())
            .map(|cause| ipu.by_cause.on(cause))
            .sum();
        assert_eq!(all, busy, "everything belongs to a part");
    }
}

/// Nothing of another IPU runs in step with it if there are no replicas to add up with.
#[test]
fn a_part_takes_time_where_it_is_placed() {
    let words = format!(
        "{MODEL} --epochs 1 --mask-tokens 4 --execution-mode PIPELINE --num-layers 2 \
         --layers-per-ipu 1 1 --gradient-accumulation-factor 8 --batches-per-step 2"
    );
    let case = Case::new(&words);
    let timeline = case.time(engine::Mode::Folded);
    let Compiled {
        program, profile, ..
    } = &case.compiled;
    for (layer, here, elsewhere) in [("Layer0", 0, 1), ("Layer1", 1, 0)] {
        let part = find(profile, &[layer, "Attention"]);
        let cycles = part::cycles(program, profile, &timeline, part);
        assert!(cycles[IpuId(here)].total() > Cycles::ZERO);
        assert_eq!(cycles[IpuId(elsewhere)].total(), Cycles::ZERO, "{layer}");
    }
}

#[test]
fn bytes_of_a_part_are_those_of_its_lines() {
    let words = format!("{MODEL} --task SQUAD --epochs 1 --num-layers 2 --layers-per-ipu 2");
    let case = Case::new(&words);
    let Compiled {
        program, profile, ..
    } = &case.compiled;
    let machine = &case.machine;
    let bytes = |path: &[&str]| {
        let part = find(profile, path);
        part::bytes(program, profile, machine, IpuId(0), part)
    };
    let weight = weigh::weigh(program, machine).unwrap();
    let [layer, attention, feed_forward] = [
        bytes(&["Layer0"]),
        bytes(&["Layer0", "Attention"]),
        bytes(&["Layer0", "FF"]),
    ];
    // Code and state belong to one line each.
    for category in Category::EXCHANGE.into_iter().chain(Category::VERTEX_STATE) {
        let halves = attention.sum(category) + feed_forward.sum(category);
        assert_eq!(layer.sum(category), halves, "{category:?}");
        assert!(layer.sum(category) <= weight.ipus[IpuId(0)].sum(category));
    }
    assert!(layer.sum(Category::VertexCode) > Bytes::ZERO);
    // Of f16 [64, 64], four in the attention and eight in the other half, with biases and norms.
    let weights = Category::AlwaysLive(ipu_sim::program::VarKind::Weight);
    let of = |part: &weigh::PartMemoryUsage| part.sum(weights).0;
    assert!((4 * 64 * 64 * 2..5 * 64 * 64 * 2).contains(&of(&attention)));
    assert!((8 * 64 * 64 * 2..9 * 64 * 64 * 2).contains(&of(&feed_forward)));
    assert_eq!(of(&layer), of(&attention) + of(&feed_forward));
}
