//! Number formats of the machine.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::Bytes;

/// The element types that tiles store.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// IEEE binary16.
    F16,
    /// IEEE binary32.
    F32,
    /// Unsigned 32-bit integer: token ids, indices, counters, seeds.
    U32,
}

impl DType {
    /// Bytes of one element.
    #[must_use]
    pub fn size(self) -> Bytes {
        Bytes(match self {
            DType::F16 => 2,
            DType::F32 | DType::U32 => 4,
        })
    }
}

impl DType {
    /// `value` as this type stores it: rounded to nearest, or truncated for integers.
    ///
    /// A finite number that overflows binary16 becomes NaN, as the chip does with `NANOO`
    /// set in its `$FP_CTL`.
    #[must_use]
    pub fn round(self, value: f64) -> f64 {
        match self {
            Self::F16 => {
                let rounded = half::f16::from_f64(value).to_f64();
                let overflows = rounded.is_infinite() && value.is_finite();
                if overflows { f64::NAN } else { rounded }
            }
            Self::F32 => f64::from(value as f32),
            Self::U32 => f64::from(value as u32),
        }
    }

    /// As [`Self::round`], but to the f16 above in magnitude if `chance`, a uniform number from 0
    /// to below 1, is smaller than the share of the way there. Types other than f16 are rounded
    /// to nearest, as on the chip.
    #[must_use]
    pub fn round_stochastically(self, value: f64, chance: f64) -> f64 {
        if self != Self::F16 || !value.is_finite() {
            return self.round(value);
        }
        // A power of two, so that dividing and multiplying by it is exact.
        let exponent = ((value.to_bits() >> 52) & 0x7FF).max(1023 - 14);
        let spacing = f64::from_bits((exponent - 10) << 52);
        let steps = value.abs() / spacing;
        let below = steps.floor();
        let up = f64::from(u8::from(chance < steps - below));
        self.round(((below + up) * spacing).copysign(value))
    }
}

/// Whether dropout with `probability` keeps the element at row-major position
/// `index` of a tensor; `id` distinguishes the uses of one seed.
///
/// A counter-based generator of our own: one hash of all arguments, whose top 53
/// bits are a uniform number. So a mask depends neither on how a tensor lies on
/// tiles nor on the number of threads, and is the same when it is needed again. The
/// machine's own generator, one stream for each worker, has none of these
/// properties; the distribution is the same. The mixing function is the finaliser
/// of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014, in Stafford's variant 13).
#[must_use]
pub fn dropout_keep(seed: [u32; 2], id: u32, index: u64, probability: f64) -> bool {
    let seed = u64::from(seed[0]) | u64::from(seed[1]) << 32;
    let stream = mix(mix(seed.wrapping_add(GOLDEN)) ^ u64::from(id)).wrapping_add(GOLDEN);
    let bits = mix(mix(index.wrapping_mul(GOLDEN)) ^ stream);
    let uniform = (bits >> 11) as f64 / (1_u64 << 53) as f64;
    uniform >= probability
}

/// What SplitMix64 adds to its state.
pub(crate) const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The finaliser of SplitMix64.
pub(crate) fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_values_are_rounded_to_their_type() {
        assert_eq!(DType::F16.round(2049.0), 2048.0);
        assert!(DType::F16.round(70_000.0).is_nan());
        assert_eq!(DType::F32.round(16_777_217.0), 16_777_216.0);
        assert_eq!(DType::U32.round(4.0e9), 4.0e9);
    }

    /// Shares of the way by hand: normal numbers, the smallest ones, and past the largest.
    #[test]
    fn stochastic_rounding_goes_up_by_the_share_of_the_way() {
        #[track_caller]
        fn check(value: f64, share: f64, [down, up]: [f64; 2]) {
            for sign in [1.0, -1.0] {
                let round = |chance| DType::F16.round_stochastically(sign * value, chance);
                if share > 0.0 {
                    assert_eq!(round(share * 0.999), sign * up);
                }
                assert_eq!(round(share), sign * down);
                assert_eq!(round(0.999_999), sign * down);
            }
        }
        check(2049.0, 0.5, [2048.0, 2050.0]);
        check(1.0 + 0.25 / 1024.0, 0.25, [1.0, 1.0 + 1.0 / 1024.0]);
        check(2048.0, 0.0, [2048.0, 2048.0]);
        check(0.0, 0.0, [0.0, 0.0]);
        let smallest = f64::from(half::f16::MIN_POSITIVE_SUBNORMAL);
        check(smallest * 0.125, 0.125, [0.0, smallest]);
        check(
            smallest * 1023.5,
            0.5,
            [smallest * 1023.0, smallest * 1024.0],
        );
        let round = |value, chance| DType::F16.round_stochastically(value, chance);
        assert!(round(65_520.0, 0.4).is_nan());
        assert_eq!(round(65_520.0, 0.5), 65_504.0);
        assert!(round(70_000.0, 0.5).is_nan());
        assert_eq!(
            DType::F32.round_stochastically(16_777_217.0, 0.0),
            16_777_216.0
        );
    }

    fn kept(seed: [u32; 2], id: u32, probability: f64) -> Vec<bool> {
        (0..100_000)
            .map(|index| dropout_keep(seed, id, index, probability))
            .collect()
    }

    #[test]
    fn dropout_keeps_the_right_share() {
        #[track_caller]
        fn check(probability: f64) {
            let mask = kept([1984, 0], 3, probability);
            let share = mask.iter().filter(|&&keep| keep).count() as f64 / mask.len() as f64;
            // Five standard deviations of a share of 100,000 samples.
            let tolerance = 5.0 * (probability * (1.0 - probability) / 1e5).sqrt();
            assert!((share - (1.0 - probability)).abs() <= tolerance, "{share}");
        }
        for probability in [0.0, 0.1, 0.5, 0.9] {
            check(probability);
        }
    }

    #[test]
    fn dropout_masks_of_other_seeds_and_ids_are_independent() {
        let mask = kept([1984, 0], 3, 0.5);
        for other in [
            kept([1985, 0], 3, 0.5),
            kept([1984, 1], 3, 0.5),
            kept([1984, 0], 4, 0.5),
        ] {
            let equal = mask.iter().zip(&other).filter(|(a, b)| a == b).count();
            assert!((49_000..51_000).contains(&equal), "{equal}");
        }
        assert_eq!(mask, kept([1984, 0], 3, 0.5));
    }
}
