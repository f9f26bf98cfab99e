//! Matrix products.

use super::Local;

/// `[.., m, k] x [.., k, n]`, each sum in the order of `k`.
pub(super) fn matmul(x: Local<'_>, y: Local<'_>) -> Vec<f64> {
    let rank = x.dims().len();
    let [m, k] = [x.dims()[rank - 2], x.dims()[rank - 1]].map(|size| size as usize);
    let n = y.dims()[rank - 1] as usize;
    let n_products: usize = x.dims()[..rank - 2]
        .iter()
        .map(|&size| size as usize)
        .product();
    let mut result = vec![0.0; n_products * m * n];
    for product in 0..n_products {
        let left = &x.floats()[product * m * k..][..m * k];
        let right = &y.floats()[product * k * n..][..k * n];
        let sums = &mut result[product * m * n..][..m * n];
        for row in 0..m {
            for inner in 0..k {
                let factor = left[row * k + inner];
                let terms = &right[inner * n..][..n];
                for (sum, term) in sums[row * n..][..n].iter_mut().zip(terms) {
                    *sum += factor * term;
                }
            }
        }
    }
    result
}
