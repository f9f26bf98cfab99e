//! How do rows of 32-bit little-endian integers lie in a file?
//!
//! Records and packs are such rows, one after the other without a header; what their integers mean
//! say [`RecordLayout`](super::RecordLayout) and [`PackLayout`](super::PackLayout).

use super::error::DataError;

/// Bytes of a row of so many integers.
pub(super) fn bytes_of(values: usize) -> usize {
    size_of::<u32>() * values
}

/// How many rows of `values` integers `bytes` bytes of a file are.
///
/// # Errors
///
/// [`DataError::RecordLength`] if they end within a row.
pub(super) fn rows_in(values: usize, bytes: u64) -> Result<u64, DataError> {
    let record_bytes = bytes_of(values) as u64;
    match record_bytes > 0 && bytes.is_multiple_of(record_bytes) {
        true => Ok(bytes / record_bytes),
        false => Err(DataError::RecordLength {
            record_bytes,
            got: bytes,
        }),
    }
}

/// The one row of `values` integers that these bytes are.
///
/// # Errors
///
/// [`DataError::RecordLength`] unless there are as many bytes as a row has.
pub(super) fn read_row(values: usize, bytes: &[u8]) -> Result<Vec<u32>, DataError> {
    if bytes.len() != bytes_of(values) {
        return Err(DataError::RecordLength {
            record_bytes: bytes_of(values) as u64,
            got: bytes.len() as u64,
        });
    }
    Ok(read(bytes))
}

/// The integers of whole rows.
///
/// # Panics
///
/// If the bytes end within an integer.
pub(super) fn read(bytes: &[u8]) -> Vec<u32> {
    let mut values = vec![0; bytes.len() / size_of::<u32>()];
    // The bytes may start at any address: they are copied, so the values are what is cast.
    bytemuck::cast_slice_mut(&mut values).copy_from_slice(bytes);
    for value in &mut values {
        *value = u32::from_le(*value);
    }
    values
}

/// Appends the bytes of the integers.
pub(super) fn write(values: &[u32], out: &mut Vec<u8>) {
    out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}
