//! Which devices does a machine offer?
//!
//! A device is one IPU, or a group of 2, 4, 8, ... that starts at a multiple of its size.
//! Ids number the single IPUs first, then the pairs, then the groups of four, and so on
//! (Graphcore, "C600 device IDs"): with 8 IPUs, IPUs 0-3 are device 12.

use crate::define_ids;
use crate::ids::IpuId;

define_ids! {
    /// A device: an IPU or a group of them.
    DeviceId, "device ";
}

/// An IPU or a group of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Id that the device is attached by.
    pub id: DeviceId,
    /// First IPU of the device, numbered in the machine.
    pub first_ipu: IpuId,
    /// Number of consecutive IPUs, a power of two.
    pub n_ipus: u32,
}

impl Device {
    /// IPUs of the device, numbered in the machine; each is also the id of a device of its own.
    pub fn ipus(&self) -> impl Iterator<Item = IpuId> + use<> {
        (self.first_ipu.0..self.first_ipu.0 + self.n_ipus).map(IpuId)
    }
}

/// All devices of a machine of `n_ipus` IPUs, by id.
pub(super) fn devices(n_ipus: u32) -> Vec<Device> {
    let sizes = (0..u32::BITS).map(|power| 1 << power);
    sizes
        .take_while(|&size: &u32| size <= n_ipus)
        .flat_map(|size| (0..n_ipus / size).map(move |group| (IpuId(group * size), size)))
        .zip(0..)
        .map(|((first_ipu, n_ipus), id)| Device {
            id: DeviceId(id),
            first_ipu,
            n_ipus,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_ipus_come_first_then_ever_larger_groups() {
        let check = |n_ipus: u32, expected: &[(u32, u32)]| {
            let devices = devices(n_ipus);
            for (position, device) in devices.iter().enumerate() {
                assert_eq!(device.id.0 as usize, position);
            }
            let ranges: Vec<(u32, u32)> = devices
                .iter()
                .map(|device| (device.first_ipu.0, device.n_ipus))
                .collect();
            assert_eq!(ranges[n_ipus as usize..], *expected);
        };
        check(1, &[]);
        check(2, &[(0, 2)]);
        check(3, &[(0, 2)]);
        // A C600 chassis: pairs are 8 to 11, fours 12 and 13, all are 14.
        check(8, &[(0, 2), (2, 2), (4, 2), (6, 2), (0, 4), (4, 4), (0, 8)]);
        assert_eq!(devices(256).len(), 511);
    }
}
