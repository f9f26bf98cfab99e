//! Plans against tables, and the pruned search against an exhaustive one.

use std::fmt::Write as _;

use expect_test::{expect, expect_file};
use ipu_sim::cost::partials::{ReduceStage, ReduceStages, reduce_stages};
use ipu_sim::numerics::DType;
use ipu_sim::spec::{MachineSpec, TileSpec};
use proptest::prelude::*;

use super::problem::{Reading, problems};
use super::search::{Objective, Pruning, walk};
use super::*;

/// A GC200 tile.
pub(super) fn gc200() -> TileSpec {
    MachineSpec::shipped("mk2-m2000").unwrap().tile
}

pub(super) fn shape([groups, m, k, n]: [u64; 4]) -> MatMulShape {
    MatMulShape { groups, m, k, n }
}

/// f16 operands and result.
pub(super) fn options(pass: Pass, partials: DType, proportion: f64) -> PlanOptions {
    PlanOptions {
        pass,
        operand: DType::F16,
        partials,
        output: DType::F16,
        available_memory_proportion: proportion,
        weight_load: WeightLoad::Bits64,
    }
}

fn planned(pass: Pass, partials: DType, sizes: [u64; 4], proportion: f64) -> Plan {
    let options = options(pass, partials, proportion);
    plan(&shape(sizes), &options, &gc200()).unwrap()
}

#[test]
fn products_alone_are_exact() {
    for &(partials, sizes, cycles, splits, channels_out, [tiles, bytes]) in tables::ALONE {
        let plan = planned(Pass::None, partials, sizes, 0.6);
        let cost = &plan.cost;
        let side_work = cost.transform_copy + cost.transform_exchange;
        let parts = [cost.amp, cost.exchange(), cost.reduce, side_work].map(|part| part.0);
        assert_eq!(cost.total().0, cycles[0], "{sizes:?}, {partials:?}");
        assert_eq!(parts, cycles[1..], "{sizes:?}, {partials:?}");
        let one_iteration = |parallel| Split {
            parallel,
            serial: 1,
        };
        let [groups, field, in_channels, out_channels] = splits;
        let splits = Splits {
            groups,
            field,
            in_channels: one_iteration(in_channels),
            out_channels: one_iteration(out_channels),
            broadcast_input_before_loop: false,
        };
        assert!(plan.swap_operands);
        assert_eq!(plan.splits, splits, "{sizes:?}, {partials:?}");
        assert_eq!(plan.vertex.out_channels_per_group, channels_out);
        assert_eq!((plan.tiles, plan.temporary.0), (tiles, bytes));
    }
}

#[test]
fn trained_layers_are_exact() {
    for &(partials, [g, m, k, n], expect) in tables::TRAINED {
        let passes = [
            (Pass::TrainingFwd, [g, m, k, n]),
            (Pass::TrainingBwd, [g, m, n, k]),
            (Pass::TrainingWu, [g, k, m, n]),
        ];
        let got = passes.map(|(pass, sizes)| planned(pass, partials, sizes, 0.6).cost.total().0);
        assert_eq!(got, expect, "{:?}, {partials:?}", [g, m, k, n]);
    }
}

/// From the same evaluation as `tables::ALONE`: serial splits appear as memory gets short.
#[test]
fn short_of_memory() {
    let check = |sizes, proportion, iterations, expect| {
        let plan = planned(Pass::None, DType::F16, sizes, proportion);
        assert_eq!(plan.cost.total().0, expect, "{sizes:?} at {proportion}");
        assert_eq!(
            plan.splits.iterations(),
            iterations,
            "{sizes:?} at {proportion}"
        );
        let bound = plan.memory_bound.unwrap();
        assert_eq!(bound.0, (638_976.0 * proportion) as u64);
        assert!(plan.temporary <= bound);
    };
    let qkv = [1, 1024, 1024, 3072];
    check(qkv, 0.1, 4, 80_860);
    check(qkv, 0.2, 1, 70_638);
    let up = [1, 1024, 1024, 4096];
    check(up, 0.1, 8, 106_620);
    check(up, 0.2, 2, 92_972);
    check(up, 0.3, 1, 89_516);
    let down = [1, 1024, 4096, 1024];
    check(down, 0.1, 8, 116_657);
    check(down, 0.2, 2, 98_205);
    check(down, 0.3, 1, 94_110);
    let down_wu = [1, 4096, 1024, 1024];
    check(down_wu, 0.1, 8, 113_784);
    check(down_wu, 0.2, 1, 101_655);
    check(down_wu, 0.3, 1, 92_732);
}

/// From the same evaluation: 128-bit loads of coefficients, and fully connected inference.
#[test]
fn other_settings() {
    let check = |weight_load, pass, partials, sizes, expect| {
        let options = PlanOptions {
            weight_load,
            ..options(pass, partials, 0.6)
        };
        let plan = plan(&shape(sizes), &options, &gc200()).unwrap();
        assert_eq!(plan.cost.total().0, expect, "{sizes:?}, {pass:?}");
        let interleaved = plan.vertex.method.needs_interleaved_coefficients();
        assert_eq!(interleaved, weight_load == WeightLoad::Bits128);
    };
    let (narrow, wide) = (WeightLoad::Bits64, WeightLoad::Bits128);
    let wide = |sizes, expect| check(wide, Pass::None, DType::F16, sizes, expect);
    wide([1, 1024, 1024, 3072], 69_614);
    wide([1, 1024, 1024, 4096], 87_468);
    wide([1, 1024, 4096, 1024], 91_550);
    let infer = |sizes, expect| check(narrow, Pass::InferenceFwd, DType::F32, sizes, expect);
    infer([1, 1024, 1024, 4096], 156_341);
    infer([1, 1024, 4096, 1024], 157_593);
    infer([1, 1024, 1024, 3072], 119_724);
    infer([128, 128, 64, 128], 10_817);
    infer([128, 128, 128, 64], 10_783);
}

/// Within 1.5 %, the accuracy of that table, apart from the rows of `tables::DIFFERENT`.
#[test]
fn published_settings() {
    let different = |row: &tables::Published| {
        let same =
            |other: &&tables::Different| (other.0, other.1, other.2) == (row.0, row.1, row.2);
        tables::DIFFERENT.iter().find(same)
    };
    for row in tables::PUBLISHED {
        let &(proportion, pass, sizes, expect) = row;
        let got = planned(pass, DType::F16, sizes, proportion).cost.total().0;
        match different(row) {
            Some(&(.., ours)) => assert_eq!(got, ours, "{sizes:?}, {pass:?}"),
            None => assert!(
                got.abs_diff(expect[0]) * 1000 <= expect[0] * 15,
                "{sizes:?}, {pass:?}: expected {} within 1.5 %, got {got}",
                expect[0]
            ),
        }
    }
}

/// Two stages of a sum, the smaller depth where two cost the same.
pub(super) fn stages_of_the_table(depth: u64) -> ReduceStages {
    let below = depth.isqrt();
    if !(16..125).contains(&depth) || below * (below + 1) != depth {
        return reduce_stages(depth);
    }
    let stage = |depth, remaining| ReduceStage { depth, remaining };
    ReduceStages::from_iter([stage(below + 1, below), stage(below, 1)])
}

/// A plan by the reading of the evaluation behind `tables::PUBLISHED`.
fn planned_by_the_table(pass: Pass, sizes: [u64; 4], proportion: f64) -> Plan {
    let spec = TileSpec {
        memory_element: Bytes(1),
        ..gc200()
    };
    let options = options(pass, DType::F16, proportion);
    let mut problems = problems(&shape(sizes), &options, &spec).unwrap();
    for problem in &mut problems {
        problem.reading = Reading::Table;
    }
    let bound = Some(Bytes((spec.memory.0 as f64 * proportion) as u64));
    let found = walk(
        &problems,
        Objective::Fastest { bound },
        Pruning::LowerBounds,
        1,
    );
    found.into_iter().next().unwrap()
}

/// The four differences of `tables::DIFFERENT` explain every row of that table, to 0.4 %.
#[test]
fn published_settings_by_the_reading_of_their_table() {
    for &(proportion, pass, sizes, expect) in tables::PUBLISHED {
        let got = planned_by_the_table(pass, sizes, proportion).cost.total().0;
        assert!(
            got.abs_diff(expect[0]) * 1000 <= expect[0] * 4,
            "{sizes:?}, {pass:?}: expected {} within 0.4 %, got {got}",
            expect[0]
        );
    }
}

/// `docs/plan-tables.md`: every table of this folder with our numbers beside it.
#[test]
fn documented_tables() {
    let mut out = String::from(include_str!("tables.txt"));
    let row = |out: &mut String, cells: &[String]| {
        writeln!(out, "| {} |", cells.join(" | ")).unwrap();
    };
    let product = |[groups, m, k, n]: [u64; 4]| format!("{groups} x [{m}, {k}] x [{k}, {n}]");
    let error =
        |got: u64, expect: u64| format!("{:+.2} %", (got as f64 / expect as f64 - 1.0) * 100.0);
    let head = |out: &mut String, title: &str, columns: &[&str]| {
        write!(out, "\n## {title}\n\n").unwrap();
        row(
            out,
            &columns.iter().map(ToString::to_string).collect::<Vec<_>>(),
        );
        row(out, &vec!["---".to_string(); columns.len()]);
    };
    head(
        &mut out,
        "Alone, proportion 0.6",
        &["partials", "product", "table", "ours", "error"],
    );
    for &(partials, sizes, [expect, ..], ..) in tables::ALONE {
        let got = planned(Pass::None, partials, sizes, 0.6).cost.total().0;
        row(
            &mut out,
            &[
                partials_name(partials).into(),
                product(sizes),
                expect.to_string(),
                got.to_string(),
                error(got, expect),
            ],
        );
    }
    head(
        &mut out,
        "Trained layers, planned apart, proportion 0.6",
        &["partials", "pass", "product", "table", "ours", "error"],
    );
    for &(partials, [g, m, k, n], expect) in tables::TRAINED {
        let passes = [
            (Pass::TrainingFwd, [g, m, k, n]),
            (Pass::TrainingBwd, [g, m, n, k]),
            (Pass::TrainingWu, [g, k, m, n]),
        ];
        for ((pass, sizes), expect) in passes.into_iter().zip(expect) {
            let got = planned(pass, partials, sizes, 0.6).cost.total().0;
            row(
                &mut out,
                &[
                    partials_name(partials).into(),
                    pass_name(pass).into(),
                    product(sizes),
                    expect.to_string(),
                    got.to_string(),
                    error(got, expect),
                ],
            );
        }
    }
    head(
        &mut out,
        "Trained layers at the published proportions, f16 partials",
        &[
            "proportion",
            "pass",
            "product",
            "table",
            "ours",
            "error",
            "by the table's reading",
            "error",
        ],
    );
    for &(proportion, pass, sizes, [expect, ..]) in tables::PUBLISHED {
        let got = planned(pass, DType::F16, sizes, proportion).cost.total().0;
        let reread = planned_by_the_table(pass, sizes, proportion).cost.total().0;
        row(
            &mut out,
            &[
                proportion.to_string(),
                pass_name(pass).into(),
                product(sizes),
                expect.to_string(),
                got.to_string(),
                error(got, expect),
                reread.to_string(),
                error(reread, expect),
            ],
        );
    }
    expect_file!["../../../docs/plan-tables.md"].assert_eq(&out);
}

fn partials_name(partials: DType) -> &'static str {
    match partials {
        DType::F16 => "half",
        _ => "float",
    }
}

/// As the command line has it.
fn pass_name(pass: Pass) -> &'static str {
    match pass {
        Pass::None => "none",
        Pass::InferenceFwd => "inference",
        Pass::TrainingFwd => "fwd",
        Pass::TrainingBwd => "bwd",
        Pass::TrainingWu => "wu",
    }
}

/// Sizes that fill no grain and machines with few tiles still have plans that cover all
/// of the work.
#[test]
fn odd_sizes() {
    let check = |sizes: [u64; 4], n_tiles, dtype| {
        let spec = TileSpec {
            tiles_per_ipu: n_tiles,
            ..gc200()
        };
        let options = PlanOptions {
            operand: dtype,
            output: dtype,
            ..options(Pass::TrainingFwd, dtype, 0.6)
        };
        let plan = plan(&shape(sizes), &options, &spec).unwrap();
        let (splits, work) = (plan.splits, plan.tile_work);
        let [groups, m, k, n] = sizes;
        let (field, out) = if plan.swap_operands { (n, m) } else { (m, n) };
        let out_width = plan.vertex.out_channels_per_group;
        let in_width = plan.vertex.in_channels_per_group;
        assert!(plan.tiles <= u64::from(n_tiles));
        assert!(splits.groups * work.groups >= groups);
        assert!(splits.field * work.field >= field);
        assert!(splits.in_channels.total() * work.in_groups * in_width >= k);
        assert!(splits.out_channels.total() * work.out_groups * out_width >= out);
    };
    for dtype in [DType::F16, DType::F32] {
        check([1, 1, 1, 1], 1472, dtype);
        check([1, 1, 64, 2], 1472, dtype);
        check([1, 8, 1024, 2], 32, dtype);
        check([3, 7, 30, 1], 4, dtype);
        check([1, 384, 64, 30_522], 32, dtype);
        check([1, 64, 64, 64], 1, dtype);
    }
}

/// Products that leave most of the matrix unit idle are planned with other codelets.
#[test]
fn other_codelets_win_small_products() {
    let products = [
        ([1, 64, 64, 64], Pass::None, DType::F16),
        ([1, 64, 1, 64], Pass::TrainingFwd, DType::F16),
        ([1, 64, 1, 64], Pass::TrainingFwd, DType::F32),
        ([1, 1024, 2, 1024], Pass::TrainingBwd, DType::F16),
        ([1, 1024, 8, 1024], Pass::TrainingFwd, DType::F16),
        ([1, 8, 1024, 2], Pass::TrainingFwd, DType::F16),
        ([1, 1024, 8, 2], Pass::TrainingWu, DType::F16),
        ([64, 64, 1, 1], Pass::TrainingFwd, DType::F16),
        ([4096, 4, 4, 4], Pass::None, DType::F16),
        ([4096, 1, 4, 1], Pass::None, DType::F16),
        ([8192, 64, 2, 1], Pass::None, DType::F16),
        ([8192, 64, 4, 4], Pass::None, DType::F16),
    ];
    let mut out = String::new();
    for (sizes, pass, partials) in products {
        let plan = planned(pass, partials, sizes, 0.6);
        let vertex = plan.vertex;
        writeln!(
            out,
            "{}, {}, {}: {} of {} to {}, {} cycles",
            shape(sizes),
            pass_name(pass),
            partials_name(partials),
            vertex.method.name(),
            vertex.in_channels_per_group,
            vertex.out_channels_per_group,
            plan.cost.total().0,
        )
        .unwrap();
    }
    expect![[r#"
        1 x [64, 64] x [64, 64], none, half: AMP of 16 to 8, 725 cycles
        1 x [64, 1] x [1, 64], fwd, half: outer product of 1 to 4, 335 cycles
        1 x [64, 1] x [1, 64], fwd, float: outer product of 1 to 4, 335 cycles
        1 x [1024, 2] x [2, 1024], bwd, half: AMP of 16 to 16, 1208 cycles
        1 x [1024, 8] x [8, 1024], fwd, half: AMP of 16 to 16, 1208 cycles
        1 x [8, 1024] x [1024, 2], fwd, half: AMP of 16 to 8, 1043 cycles
        1 x [1024, 8] x [8, 2], wu, half: AMP of 16 to 8, 505 cycles
        64 x [64, 1] x [1, 1], fwd, half: outer product of 1 to 4, 333 cycles
        4096 x [4, 4] x [4, 4], none, half: SLIC of 4 to 4, 1102 cycles
        4096 x [1, 4] x [4, 1], none, half: SLIC of 1 to 1, 808 cycles
        8192 x [64, 2] x [2, 1], none, half: SLIC of 1 to 1, 4929 cycles
        8192 x [64, 4] x [4, 4], none, half: SLIC of 4 to 4, 8698 cycles
    "#]]
    .assert_eq(&out);
}

/// A smaller share of memory never gets a plan that takes more of it, as long as something
/// fits: either the plan of the larger share still fits, or it doesn't and the new one does.
fn shares() -> impl Strategy<Value = (f64, f64)> {
    (0.0..0.01f64, 0.0..0.01f64).prop_map(|(a, b)| (a.min(b), a.max(b)))
}

/// The bound doubles until something fits; a product too large for any bound has a plan
/// all the same; no memory at all asks for the smallest plan.
#[test]
fn memory_that_does_not_suffice() {
    let check = |n_tiles, sizes, proportion, expect: Option<u64>| {
        let spec = TileSpec {
            tiles_per_ipu: n_tiles,
            ..gc200()
        };
        let options = options(Pass::None, DType::F16, proportion);
        let plan = plan(&shape(sizes), &options, &spec).unwrap();
        assert_eq!(
            plan.memory_bound,
            expect.map(Bytes),
            "{sizes:?} at {proportion}"
        );
        plan
    };
    check(1472, [1, 64, 64, 64], 0.6, Some(383_385));
    // 638,976 * 0.00002 = 12 B hold nothing, twice that no plan of so few tiles.
    check(1472, [1, 64, 64, 64], 0.00002, Some(48));
    check(1, [512, 512, 16, 8192], 0.6, None);
    let smallest = check(1472, [1, 1024, 1024, 1024], 0.0, None);
    let fastest = check(1472, [1, 1024, 1024, 1024], 0.6, Some(383_385));
    assert!(smallest.temporary < fastest.temporary);
    assert!(smallest.cost.total() > fastest.cost.total());
}

#[test]
fn what_is_refused() {
    let check = |sizes, options: PlanOptions, expect: &str| {
        let error = plan(&shape(sizes), &options, &gc200()).unwrap_err();
        assert_eq!(error.to_string(), expect);
    };
    let good = options(Pass::None, DType::F16, 0.6);
    check(
        [1, 2, 0, 4],
        good,
        "matmul 1 x [2, 0] x [0, 4]: every dimension must be at least 1",
    );
    let integers = PlanOptions {
        operand: DType::U32,
        ..good
    };
    let no_unit = "matmul: no matrix unit for U32 operands with F16 partials";
    check([1, 2, 3, 4], integers, no_unit);
    for proportion in [-0.1, f64::NAN, f64::INFINITY] {
        let expect =
            format!("matmul: available memory proportion must be from 0 to 1, got {proportion}");
        let bad = options(Pass::None, DType::F16, proportion);
        check([1, 2, 3, 4], bad, &expect);
    }
}

/// A cache plans each request once, with the other passes of its layer, and gives what
/// planning alone gives where these are planned apart.
#[test]
fn cached_plans() {
    let request = |k| PlanRequest {
        shape: shape([1, 1024, k, 64]),
        options: options(Pass::TrainingFwd, DType::F16, 0.6),
    };
    let cache = PlanCache::new(gc200());
    assert!(cache.is_empty());
    let requests = [request(64), request(128), request(64)];
    cache.fill(&requests).unwrap();
    assert_eq!(cache.len(), 2 * 3);
    for request in &requests {
        let alone = plan(&request.shape, &request.options, &gc200()).unwrap();
        assert_eq!(cache.get(request).as_deref(), Some(&alone));
    }
    let late = request(256);
    assert_eq!(cache.get(&late), None);
    let refused = cache.fill(&[request(32), request(0)]);
    assert_eq!(refused, Err(PlanError::EmptyDimension(request(0).shape)));
    assert!(cache.get(&request(32)).is_some());
}

/// Threads that fill one cache at the same time leave what one after the other would.
#[test]
fn threads_share_a_cache() {
    let request = |k| PlanRequest {
        shape: shape([1, 256, k, 64]),
        options: options(Pass::TrainingFwd, DType::F16, 0.6),
    };
    let requests = [64, 128, 192, 256].map(request);
    let (shared, alone) = (PlanCache::new(gc200()), PlanCache::new(gc200()));
    std::thread::scope(|scope| {
        for first in 0..requests.len() {
            let (shared, mut requests) = (&shared, requests);
            requests.rotate_left(first);
            scope.spawn(move || {
                for request in requests {
                    shared.fill(std::slice::from_ref(&request)).unwrap();
                }
            });
        }
    });
    alone.fill(&requests).unwrap();
    assert_eq!(shared.len(), alone.len());
    for request in &requests {
        assert_eq!(shared.get(request), alone.get(request));
    }
}

fn any_options() -> impl Strategy<Value = PlanOptions> {
    let passes = prop::sample::select(vec![
        Pass::None,
        Pass::InferenceFwd,
        Pass::TrainingFwd,
        Pass::TrainingBwd,
        Pass::TrainingWu,
    ]);
    let types = prop::sample::select(vec![
        (DType::F16, DType::F16, DType::F16),
        (DType::F16, DType::F32, DType::F16),
        (DType::F16, DType::F32, DType::F32),
        (DType::F32, DType::F32, DType::F32),
    ]);
    (passes, types).prop_map(|(pass, (operand, partials, output))| PlanOptions {
        pass,
        operand,
        partials,
        output,
        available_memory_proportion: 0.0,
        weight_load: WeightLoad::Bits64,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Where nothing fits a share the bound doubles, and may exceed the larger share.
    #[test]
    fn less_memory_is_never_more(
        sizes in (1u64..20, 1u64..150, 1u64..150, 1u64..150),
        n_tiles in 1u32..80,
        (small, large) in shares(),
        options in any_options(),
    ) {
        let spec = TileSpec { tiles_per_ipu: n_tiles, ..gc200() };
        let (groups, m, k, n) = sizes;
        let plan_at = |share| {
            let options = PlanOptions { available_memory_proportion: share, ..options };
            plan(&shape([groups, m, k, n]), &options, &spec).unwrap()
        };
        let (tight, roomy) = (plan_at(small), plan_at(large));
        let bound = Bytes((spec.memory.0 as f64 * small) as u64);
        let fits = bound == Bytes::ZERO || tight.memory_bound == Some(bound);
        prop_assert!(!fits || tight.temporary <= roomy.temporary);
        prop_assert!(!fits || tight.temporary <= bound || bound == Bytes::ZERO);
    }

    /// Pruning changes nothing: neither the plan nor whether there is one.
    #[test]
    fn pruning_keeps_the_best_plan(
        sizes in (1u64..12, 1u64..80, 1u64..80, 1u64..80),
        n_tiles in 1u32..40,
        bound in 500u64..20_000,
        options in any_options(),
    ) {
        let spec = TileSpec { tiles_per_ipu: n_tiles, ..gc200() };
        let (groups, m, k, n) = sizes;
        let problems = problems(&shape([groups, m, k, n]), &options, &spec).unwrap();
        for objective in [
            Objective::Fastest { bound: Some(Bytes(bound)) },
            Objective::Fastest { bound: None },
            Objective::Smallest,
        ] {
            let pruned = walk(&problems, objective, Pruning::LowerBounds, 3);
            let exhaustive = walk(&problems, objective, Pruning::Nothing, 3);
            prop_assert_eq!(pruned, exhaustive);
        }
    }
}
