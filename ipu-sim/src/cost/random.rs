//! Random-number vertices: dropout and the distributions that fill a tensor.
//!
//! Source: PopLibs `lib/poprand/poprandCycleEstimators.cpp`.
//! For `Uniform` and `Bernoulli` the source takes a vector to hold 32 (f32) or 16 (f16)
//! elements, which is 16 and 4 times too many; here they cost 4 and 1 cycles for each 64-bit
//! vector, as their loops issue. Left out: integers.
//!
//! Unlike other vertices, the loops are counted for the whole tile: six workers together
//! issue one instruction a cycle.

use super::elementwise::worker::{assert_float, vector_width};
use crate::numerics::DType;
use crate::spec::TileSpec;
use crate::units::Cycles;

/// A law of this family: tile cycles for `n` elements are
/// `supervisor + workers * per_worker + floor(per_vector * (n + width - 1) / width)`, and
/// `tail` if the last vector isn't whole.
struct Law {
    supervisor: u64,
    per_worker: u64,
    per_vector: u64,
    tail: u64,
}

impl Law {
    fn cycles(&self, dtype: DType, elements: u64, spec: &TileSpec) -> Cycles {
        let width = vector_width(dtype, spec);
        let tail = if elements.is_multiple_of(width) {
            0
        } else {
            self.tail
        };
        let vectors = self.per_vector * (elements + width - 1) / width;
        let workers = u64::from(spec.workers) * self.per_worker;
        Cycles(self.supervisor + workers + vectors + tail)
    }
}

/// Tile cycles of `Dropout` over `elements`: mask from the seed, times the data.
#[must_use]
pub fn dropout(dtype: DType, elements: u64, spec: &TileSpec) -> Cycles {
    assert_float(dtype, "dropout");
    let law = Law {
        supervisor: 6,
        per_worker: 24,
        per_vector: 2,
        tail: if dtype == DType::F32 { 1 } else { 9 },
    };
    law.cycles(dtype, elements, spec)
}

/// Tile cycles of `Bernoulli` over `elements`.
#[must_use]
pub fn bernoulli(dtype: DType, elements: u64, spec: &TileSpec) -> Cycles {
    assert_float(dtype, "a Bernoulli distribution");
    let (per_worker, tail) = if dtype == DType::F32 {
        (23, 1)
    } else {
        (21, 9)
    };
    let law = Law {
        supervisor: 4,
        per_worker,
        per_vector: 1,
        tail,
    };
    law.cycles(dtype, elements, spec)
}

/// Tile cycles of `Uniform` over `elements`.
#[must_use]
pub fn uniform(dtype: DType, elements: u64, spec: &TileSpec) -> Cycles {
    assert_float(dtype, "a uniform distribution");
    let (per_worker, tail) = if dtype == DType::F32 {
        (22, 4)
    } else {
        (24, 12)
    };
    let law = Law {
        supervisor: 4,
        per_worker,
        per_vector: 4,
        tail,
    };
    law.cycles(dtype, elements, spec)
}

/// Tile cycles of `Normal` over `elements`.
#[must_use]
pub fn normal(dtype: DType, elements: u64, spec: &TileSpec) -> Cycles {
    assert_float(dtype, "a normal distribution");
    let (per_worker, tail) = if dtype == DType::F32 {
        (22, 3)
    } else {
        (24, 12)
    };
    let law = Law {
        supervisor: 4,
        per_worker,
        per_vector: 4,
        tail,
    };
    law.cycles(dtype, elements, spec)
}

/// Tile cycles of `TruncatedNormal` over `elements`, drawing again up to `iterations` times.
#[must_use]
pub fn truncated_normal(dtype: DType, iterations: u64, elements: u64, spec: &TileSpec) -> Cycles {
    assert_float(dtype, "a truncated normal distribution");
    let law = match dtype {
        DType::F32 => Law {
            supervisor: 4,
            per_worker: 26,
            per_vector: 11 * iterations + 5,
            tail: 13 * iterations + 2,
        },
        _ => Law {
            supervisor: 4,
            per_worker: 28,
            per_vector: 12 * iterations + 5,
            tail: 12 * iterations + 10,
        },
    };
    law.cycles(dtype, elements, spec)
}

/// Tile cycles of `SetSeed`: a state for each worker from one seed.
#[must_use]
pub fn set_seed(spec: &TileSpec) -> Cycles {
    Cycles(14 + 27 * u64::from(spec.workers))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::fixtures::gc200;
    use DType::{F16, F32};

    #[test]
    fn laws() {
        type Vertex = fn(DType, u64, &TileSpec) -> Cycles;
        let check = |law: Vertex, dtype, elements, cycles| {
            assert_eq!(
                law(dtype, elements, &gc200()),
                Cycles(cycles),
                "{dtype:?} {elements}"
            );
        };
        // 6 + 144 + floor(2 * 4099 / 4) and 6 + 144 + 4097.
        check(dropout, F16, 4096, 2199);
        check(dropout, F32, 4096, 4247);
        check(dropout, F16, 4097, 6 + 144 + 2050 + 9);
        check(bernoulli, F16, 4096, 4 + 126 + 1024);
        check(bernoulli, F32, 3, 4 + 138 + 2 + 1);
        check(uniform, F16, 4096, 4 + 144 + 4099);
        check(uniform, F32, 4096, 4 + 132 + 8194);
        check(normal, F16, 4096, 4 + 144 + 4099);
        check(normal, F32, 4097, 4 + 132 + 8196 + 3);
        let truncated: Vertex = |dtype, n, spec| truncated_normal(dtype, 2, n, spec);
        check(truncated, F32, 4, 4 + 156 + 27 * 5 / 2);
        check(truncated, F16, 5, 4 + 168 + 29 * 8 / 4 + 34);
        assert_eq!(set_seed(&gc200()), Cycles(176));
    }
}
