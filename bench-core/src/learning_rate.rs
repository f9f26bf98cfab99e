//! Which learning rate a training step runs at.
//!
//! The schedules of `bert.py`, its off-by-one included: the schedule is asked after step `n` with
//! the counter `n`, and never at 0. So step 0 and step 1 both run at the value of key 0, step 2 at
//! that of key 1, and the rate of an epoch starts with its second step.

use crate::config::{LearningRate, RateFunction};

/// The rate at the end of a linear schedule.
const LINEAR_END: f64 = 1e-7;

/// The steps of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first one; not 0 where training goes on from an epoch.
    pub first_step: u64,
    /// Steps of an epoch, at least one.
    pub steps_per_epoch: u64,
    /// Steps up to the end of the run, from 0, whole epochs counted.
    pub total_steps: u64,
}

/// The learning rate of `step` (from 0).
#[must_use]
pub fn rate_of_step(schedule: &LearningRate, step: u64, span: &Span) -> f64 {
    // Before its first step, a schedule is moved to where it would be by then.
    let counter = step.saturating_sub(1).max(span.first_step);
    match schedule.function {
        RateFunction::Linear => linear(schedule, counter, span.total_steps),
        RateFunction::Scheduled if !schedule.by_epoch.is_empty() => {
            let epoch = counter / span.steps_per_epoch;
            in_force(&schedule.by_epoch, epoch, schedule.rate)
        }
        RateFunction::Scheduled => in_force(&schedule.by_step, counter, schedule.rate),
    }
}

/// The value of the last key not above `counter`, else `start`.
fn in_force(pairs: &[(u64, f64)], counter: u64, start: f64) -> f64 {
    let past = pairs.iter().take_while(|(at, _)| *at <= counter);
    past.last().map_or(start, |(_, rate)| *rate)
}

fn linear(schedule: &LearningRate, counter: u64, total_steps: u64) -> f64 {
    let rise = Ramp {
        first_step: 0,
        end_step: schedule.warmup_steps,
        every: schedule.steps_per_warmup_update,
        from: schedule.warmup_start,
        to: schedule.rate,
    };
    let fall = Ramp {
        first_step: schedule.warmup_steps,
        end_step: total_steps,
        every: schedule.steps_per_decay_update,
        from: schedule.rate,
        to: LINEAR_END,
    };
    let rate = fall.rate(counter).or_else(|| rise.rate(counter));
    rate.unwrap_or(schedule.rate)
}

/// Rates evenly spaced, both ends included, over the steps `first_step`, `first_step + every`, …
/// below `end_step`; each holds until the next.
struct Ramp {
    first_step: u64,
    end_step: u64,
    every: u64,
    from: f64,
    to: f64,
}

impl Ramp {
    fn rate(&self, counter: u64) -> Option<f64> {
        let points = self
            .end_step
            .saturating_sub(self.first_step)
            .div_ceil(self.every);
        let point = counter.checked_sub(self.first_step)? / self.every;
        let last = points.checked_sub(1)?;
        if last == 0 {
            return Some(self.from);
        }
        let part = point.min(last) as f64 / last as f64;
        Some(self.from + (self.to - self.from) * part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linear_schedule() -> LearningRate {
        LearningRate {
            rate: 1.0,
            function: RateFunction::Linear,
            warmup_start: 0.0,
            warmup_steps: 4,
            steps_per_warmup_update: 2,
            steps_per_decay_update: 1,
            by_epoch: vec![],
            by_step: vec![],
        }
    }

    fn check(schedule: &LearningRate, steps_per_epoch: u64, total: u64, expected: &[f64]) {
        let span = Span {
            first_step: 0,
            steps_per_epoch,
            total_steps: total,
        };
        check_span(schedule, &span, expected);
    }

    fn check_span(schedule: &LearningRate, span: &Span, expected: &[f64]) {
        for (step, expected) in (span.first_step..).zip(expected) {
            let rate = rate_of_step(schedule, step, span);
            assert!(
                (rate - expected).abs() < 1e-6,
                "step {step}: expected {expected}, got {rate}"
            );
        }
    }

    #[test]
    fn linear_rises_in_two_points_and_falls_in_three() {
        // Counters 0 1 | 2 3 | 4 5 6 after the shift by one.
        check(
            &linear_schedule(),
            1,
            7,
            &[0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.5, 1e-7],
        );
    }

    #[test]
    fn going_on_starts_where_the_schedule_would_be() {
        let span = Span {
            first_step: 4,
            steps_per_epoch: 1,
            total_steps: 7,
        };
        // Without the move, step 4 would still run at the rate of counter 3.
        check_span(&linear_schedule(), &span, &[1.0, 1.0, 0.5, 1e-7]);
        let by_step = LearningRate {
            function: RateFunction::Scheduled,
            by_step: vec![(0, 0.5), (4, 0.25)],
            ..linear_schedule()
        };
        check_span(&by_step, &span, &[0.25, 0.25]);
    }

    #[test]
    fn short_runs_stay_in_the_rise() {
        check(&linear_schedule(), 1, 1, &[0.0]);
    }

    #[test]
    fn no_warm_up_starts_at_the_peak() {
        let schedule = LearningRate {
            warmup_steps: 0,
            ..linear_schedule()
        };
        check(&schedule, 1, 3, &[1.0, 1.0, 0.5, 1e-7]);
    }

    #[test]
    fn scheduled_by_step_and_epoch() {
        let constant = LearningRate {
            function: RateFunction::Scheduled,
            ..linear_schedule()
        };
        check(&constant, 1, 3, &[1.0, 1.0, 1.0]);
        let by_step = LearningRate {
            by_step: vec![(0, 0.5), (2, 0.25)],
            ..constant.clone()
        };
        check(&by_step, 1, 4, &[0.5, 0.5, 0.5, 0.25]);
        let by_epoch = LearningRate {
            by_epoch: vec![(1, 0.25)],
            ..constant
        };
        check(&by_epoch, 2, 6, &[1.0, 1.0, 1.0, 0.25, 0.25]);
    }
}
