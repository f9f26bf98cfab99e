//! First values of weights, from a seed.
//!
//! Every variable has a generator of its own, seeded by the run's seed and its
//! name, so that its values don't depend on what else a model holds. Normal
//! deviates come from comparing uniform ones (von Neumann's rejection by runs, as
//! in Karney, "Sampling exactly from the normal distribution", 2016): no
//! logarithm, no exponential, so the same bits on every machine. Left out: the
//! streams of numpy, which the published application draws from.

use popart_graph::ir::{Graph, Init, Tensor, TensorId, TensorKind};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

/// Standard deviations from the mean beyond which draws are repeated
/// (`applications/popart/bert/bert_model.py`, `normal_init_tensor`).
const CUT: f64 = 2.0;

/// A variable whose first value comes from outside.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` has no rule for its first value")]
pub struct NoFirstValue {
    /// Name of the variable.
    pub name: String,
}

/// First values of every variable of a graph, in order of id, each row-major and
/// rounded to its variable's type.
///
/// # Errors
/// A variable's first value comes from outside.
pub fn initial_values(graph: &Graph, seed: u64) -> Result<Vec<(TensorId, Vec<f32>)>, NoFirstValue> {
    graph
        .tensors
        .iter()
        .filter_map(|(id, tensor)| match tensor.kind {
            TensorKind::Variable { init } => {
                Some(initial_value(tensor, init, seed).map(|values| (id, values)))
            }
            TensorKind::Constant(_) | TensorKind::Stream | TensorKind::Activation => None,
        })
        .collect()
}

/// The first values of one variable with that initialiser, row-major.
///
/// # Errors
/// There is no initialiser.
pub fn initial_value(
    tensor: &Tensor,
    init: Option<Init>,
    seed: u64,
) -> Result<Vec<f32>, NoFirstValue> {
    let n = usize::try_from(tensor.shape.elements().0).expect("a weight fits the address space");
    let stored = |value: f64| tensor.dtype.round(value) as f32;
    match init {
        None => Err(NoFirstValue {
            name: tensor.name.clone(),
        }),
        Some(Init::Zeros) => Ok(vec![0.0; n]),
        Some(Init::Ones) => Ok(vec![1.0; n]),
        Some(Init::Splat(value)) => Ok(vec![stored(value); n]),
        Some(Init::TruncatedNormal { mean, std_dev }) => {
            let mut generator = generator(seed, &tensor.name);
            let draw = |_| stored(mean + std_dev * truncated_normal(&mut generator));
            Ok((0..n).map(draw).collect())
        }
    }
}

/// A generator for one purpose of a run.
#[must_use]
pub fn generator(seed: u64, purpose: &str) -> Xoshiro256PlusPlus {
    // FNV-1a: any hash does that is the same everywhere.
    let hash = purpose
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    Xoshiro256PlusPlus::seed_from_u64(seed ^ hash)
}

/// A number of `[0, 1)`.
pub(crate) fn uniform(generator: &mut impl Rng) -> f64 {
    (generator.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

/// A standard normal number within [`CUT`] of 0: a uniform `x` is taken with
/// probability `exp(-x^2 / 2)`.
fn truncated_normal(generator: &mut impl Rng) -> f64 {
    loop {
        let x = CUT * (2.0 * uniform(generator) - 1.0);
        // At the cut the exponent is 2, and the test below takes at most 1.
        let half_exponent = x * x / 4.0;
        if happens(generator, half_exponent) && happens(generator, half_exponent) {
            return x;
        }
    }
}

/// True with probability `exp(-exponent)`, for an exponent of `[0, 1]`: a falling
/// run of uniform numbers that starts below the exponent has length `n` or more
/// with probability `exponent^n / n!`, so an even length with `exp(-exponent)`.
fn happens(generator: &mut impl Rng, exponent: f64) -> bool {
    let mut last = exponent;
    let mut length = 0_u32;
    loop {
        let next = uniform(generator);
        if next >= last {
            return length.is_multiple_of(2);
        }
        last = next;
        length += 1;
    }
}

#[cfg(test)]
mod tests {
    use ipu_sim::numerics::DType;
    use popart_graph::ir::Shape;

    use super::*;

    const NORMAL: Init = Init::TruncatedNormal {
        mean: 0.0,
        std_dev: 0.02,
    };

    fn values(
        name: &str,
        dtype: DType,
        init: Option<Init>,
        seed: u64,
    ) -> Result<Vec<f32>, NoFirstValue> {
        let tensor = Tensor {
            number: 0,
            name: name.to_owned(),
            dtype,
            shape: Shape::from([200, 250]),
            kind: TensorKind::Variable { init },
            part: None,
        };
        initial_value(&tensor, init, seed)
    }

    #[test]
    fn draws_have_the_moments_of_a_truncated_normal() {
        let drawn = values("w", DType::F32, Some(NORMAL), 1).unwrap();
        let n = drawn.len() as f64;
        let moment = |power: i32| -> f64 {
            let sum: f64 = drawn
                .iter()
                .map(|&x| (f64::from(x) / 0.02).powi(power))
                .sum();
            sum / n
        };
        assert!(drawn.iter().all(|x| x.abs() <= 0.04));
        // Of N(0, 1) cut at 2: variance 1 - 4 phi(2) / (2 Phi(2) - 1) = 0.77374, fourth
        // moment 3 variance - 16 phi(2) / (2 Phi(2) - 1) = 1.41618.
        for (power, expected, tolerance) in [
            (1, 0.0, 0.02),
            (2, 0.773_74, 0.02),
            (3, 0.0, 0.05),
            (4, 1.416_18, 0.05),
        ] {
            let got = moment(power);
            assert!((got - expected).abs() < tolerance, "moment {power}: {got}");
        }
    }

    #[test]
    fn values_depend_on_seed_and_name_and_fit_the_type() {
        let drawn = |name, seed| values(name, DType::F16, Some(NORMAL), seed).unwrap();
        let first = drawn("w", 1);
        assert_eq!(first, drawn("w", 1));
        assert_ne!(first, drawn("w", 2));
        assert_ne!(first, drawn("v", 1));
        assert!(
            first
                .iter()
                .all(|&x| DType::F16.round(f64::from(x)) == f64::from(x))
        );
    }

    #[test]
    fn constants_need_no_generator_and_nothing_is_an_error() {
        #[track_caller]
        fn check(init: Init, expected: f32) {
            let got = values("w", DType::F16, Some(init), 1).unwrap();
            assert!(got.iter().all(|&value| value == expected));
        }
        check(Init::Zeros, 0.0);
        check(Init::Ones, 1.0);
        check(Init::Splat(0.1), 0.099_975_586);
        let name = "w".to_owned();
        assert_eq!(values("w", DType::F16, None, 1), Err(NoFirstValue { name }));
    }
}
