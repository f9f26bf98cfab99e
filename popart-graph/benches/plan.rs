//! How long does planning take? One product, and all distinct products of a training step.

use criterion::{Criterion, criterion_group, criterion_main};
use ipu_sim::numerics::DType;
use ipu_sim::spec::{MachineSpec, TileSpec};
use ipu_sim::vertex::WeightLoad;
use popart_graph::plan::{MatMulShape, Pass, PlanCache, PlanOptions, PlanRequest, plan};

/// A GC200 tile.
fn gc200() -> TileSpec {
    let machine = MachineSpec::shipped("mk2-m2000").expect("the description ships");
    machine.tile
}

fn request(pass: Pass, [groups, m, k, n]: [u64; 4], proportion: f64) -> PlanRequest {
    PlanRequest {
        shape: MatMulShape { groups, m, k, n },
        options: PlanOptions {
            pass,
            operand: DType::F16,
            partials: DType::F16,
            output: DType::F16,
            available_memory_proportion: proportion,
            weight_load: WeightLoad::Bits64,
        },
    }
}

/// The three products of every layer of BERT-Large, micro-batch 8, sequence length 128;
/// those on the first IPU have another memory proportion.
fn bert_large() -> Vec<PlanRequest> {
    let (tokens, masked, hidden, feed_forward, vocabulary) = (1024, 160, 1024, 4096, 6080);
    let encoder = [
        [1, tokens, hidden, 3 * hidden],
        [128, 128, 64, 128],
        [128, 128, 128, 64],
        [1, tokens, hidden, hidden],
        [1, tokens, hidden, feed_forward],
        [1, tokens, feed_forward, hidden],
    ];
    let first_ipu = [
        [1, masked, hidden, vocabulary],
        [1, tokens, hidden, hidden],
        [1, 8, hidden, hidden],
        [1, 8, hidden, 2],
    ];
    let layers = [0.25, 0.15].into_iter().flat_map(|proportion| {
        let heads = (proportion < 0.25).then_some(first_ipu);
        encoder
            .into_iter()
            .chain(heads.into_iter().flatten())
            .map(move |shape| (shape, proportion))
    });
    layers
        .flat_map(|([g, m, k, n], proportion)| {
            [
                request(Pass::TrainingFwd, [g, m, k, n], proportion),
                request(Pass::TrainingBwd, [g, m, n, k], proportion),
                request(Pass::TrainingWu, [g, k, m, n], proportion),
            ]
        })
        .collect()
}

fn bench(criterion: &mut Criterion) {
    let spec = gc200();
    for proportion in [0.6, 0.1] {
        let feed_forward = request(Pass::TrainingFwd, [1, 1024, 1024, 4096], proportion);
        criterion.bench_function(&format!("plan/feed_forward_at_{proportion}"), |bencher| {
            bencher.iter(|| plan(&feed_forward.shape, &feed_forward.options, &spec));
        });
    }
    let step = bert_large();
    criterion.bench_function(&format!("plan/step_of_{}", step.len()), |bencher| {
        bencher.iter(|| {
            let cache = PlanCache::new(spec.clone());
            let filled = cache.fill(&step);
            assert_eq!(filled, Ok(()));
            cache.len()
        });
    });
}

criterion_group!(benches, bench);
criterion_main!(benches);
