//! Work that is spread over the processors of the host.
//!
//! The threads are started when they are needed first. Where the system refuses some of them
//! (`ulimit -u`, a container's limit of processes), there are fewer; where it refuses all, the work
//! is done on the thread that asks for it. The results are the same.
//!
//! Who calls from a thread of a pool of rayon's has the work done in that pool: a thread that waits
//! for another pool takes up more work of its own meanwhile, on the same stack, without an end.

use std::sync::OnceLock;

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

/// Results of `each` for all items, in their order.
pub fn map<T: Sync, R: Send>(items: &[T], each: impl Fn(&T) -> R + Send + Sync) -> Vec<R> {
    match is_in_a_pool() {
        true => items.par_iter().map(each).collect(),
        false => map_on(pool(), items, each),
    }
}

fn is_in_a_pool() -> bool {
    rayon::current_thread_index().is_some()
}

/// Results of two pieces of work that need not wait for each other.
pub fn join<A: Send, B: Send>(
    first: impl FnOnce() -> A + Send,
    second: impl FnOnce() -> B + Send,
) -> (A, B) {
    if is_in_a_pool() {
        return rayon::join(first, second);
    }
    match pool() {
        Some(pool) => pool.join(first, second),
        None => (first(), second()),
    }
}

fn map_on<T: Sync, R: Send>(
    pool: Option<&ThreadPool>,
    items: &[T],
    each: impl Fn(&T) -> R + Send + Sync,
) -> Vec<R> {
    match pool {
        Some(pool) => pool.install(|| items.par_iter().map(each).collect()),
        None => items.iter().map(each).collect(),
    }
}

/// The threads of this process; none where the system refuses all of them.
fn pool() -> Option<&'static ThreadPool> {
    static POOL: OnceLock<Option<ThreadPool>> = OnceLock::new();
    POOL.get_or_init(|| as_many_as_start(|n| ThreadPoolBuilder::new().num_threads(n).build()))
        .as_ref()
}

/// As many threads as rayon wants (one a processor, or `RAYON_NUM_THREADS`), else half as many.
fn as_many_as_start<P>(build: impl Fn(usize) -> Result<P, ThreadPoolBuildError>) -> Option<P> {
    /// What rayon takes for as many as it wants.
    const DEFAULT: usize = 0;
    let fewer = || {
        let all = std::thread::available_parallelism().map_or(1, usize::from);
        std::iter::successors(Some(all / 2), |n| Some(n / 2)).take_while(|&n| n > 0)
    };
    build(DEFAULT)
        .ok()
        .or_else(|| fewer().find_map(|n| build(n).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pool whose threads want more memory for their stacks than any system gives.
    fn refused(n: usize) -> Result<ThreadPool, ThreadPoolBuildError> {
        let builder = ThreadPoolBuilder::new().num_threads(n);
        builder.stack_size(1 << 60).build()
    }

    #[test]
    fn without_threads_the_work_is_done_here() {
        let pool = as_many_as_start(refused);
        assert!(pool.is_none());
        let here = std::thread::current().id();
        let doubled = map_on(pool.as_ref(), &[1, 2, 3], |n| {
            assert_eq!(std::thread::current().id(), here);
            2 * n
        });
        assert_eq!(doubled, [2, 4, 6]);
    }

    /// A thread that waits for another pool would start the next of these on top of each.
    #[test]
    fn work_within_work_stays_in_its_pool() {
        let pool = ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let outer: Vec<u32> = (0..64).collect();
        let indices = pool.install(|| {
            let each = |_: &u32| map(&[0, 1], |_| rayon::current_num_threads());
            outer.par_iter().map(each).collect::<Vec<_>>()
        });
        assert!(indices.iter().all(|inner| *inner == [3, 3]));
        let (inner, here) = pool.install(|| join(rayon::current_num_threads, || 1));
        assert_eq!((inner, here), (3, 1));
    }

    #[test]
    fn with_too_few_threads_there_are_fewer() {
        let one_at_most = |n| match n {
            1 => ThreadPoolBuilder::new().num_threads(n).build(),
            _ => refused(n),
        };
        let all = std::thread::available_parallelism().unwrap().get();
        if let Some(pool) = as_many_as_start(one_at_most) {
            assert_eq!(pool.current_num_threads(), 1);
            assert_eq!(map_on(Some(&pool), &[1, 2], |n| n + 1), [2, 3]);
        } else {
            assert_eq!(all, 1, "half of what was refused is tried");
        }
        assert_eq!(map(&[3, 4], |n| n * n), [9, 16]);
        assert_eq!(join(|| 1, || "two"), (1, "two"));
    }
}
