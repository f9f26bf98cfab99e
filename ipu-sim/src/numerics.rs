//! Number formats of the machine.

use serde::{Deserialize, Serialize};

use crate::units::Bytes;

/// The element types that tiles store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
    /// `value` as this type stores it: rounded to nearest, or wrapped for integers.
    #[must_use]
    pub fn round(self, value: f64) -> f64 {
        match self {
            Self::F16 => half::f16::from_f64(value).to_f64(),
            Self::F32 => f64::from(value as f32),
            Self::U32 => f64::from(value as u32),
        }
    }
}

/// Whether dropout with `probability` keeps element `index` under mask `id` of `seed`.
///
/// A counter-based generator of our own: the same mask for the same arguments, whatever
/// the layout on tiles, so that recomputed passes and gradients see one mask.
#[must_use]
pub fn dropout_keep(seed: [u32; 2], id: u32, index: u64, probability: f64) -> bool {
    let key = (u64::from(seed[0]) << 32 | u64::from(seed[1])) ^ mix(u64::from(id) + 1);
    let uniform = (mix(key ^ mix(index)) >> 11) as f64 / (1u64 << 53) as f64;
    uniform >= probability
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropout_drops_the_asked_share_and_depends_on_every_argument() {
        let kept = |seed, id| -> Vec<bool> {
            (0..20_000)
                .map(|index| dropout_keep(seed, id, index, 0.1))
                .collect()
        };
        let mask = kept([1, 2], 3);
        let dropped = mask.iter().filter(|&&keep| !keep).count();
        assert!((1_800..2_200).contains(&dropped), "{dropped}");
        assert_ne!(mask, kept([1, 3], 3));
        assert_ne!(mask, kept([1, 2], 4));
    }

    #[test]
    fn half_overflows_to_infinity_and_integers_stay() {
        assert_eq!(DType::F16.round(2049.0), 2048.0);
        assert_eq!(DType::U32.round(4_000_000_000.0), 4.0e9);
    }
}
