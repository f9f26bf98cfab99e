//! The host's clock: the only place that reads it.
//!
//! Durations are [`HostSeconds`], never simulated time. Dates are UTC: the standard library knows
//! no time zones.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ipu_sim::units::HostSeconds;

/// A running stopwatch.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts one.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "this module is the home of the host's clock"
    )]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Host seconds since its start.
    #[must_use]
    pub fn seconds(&self) -> HostSeconds {
        HostSeconds(self.0.elapsed().as_secs_f64())
    }
}

/// The host's time as the device driver wants it: for time-outs.
#[derive(Clone, Copy, Debug)]
pub struct HostClock(Stopwatch);

impl HostClock {
    /// A clock that starts at zero now.
    #[must_use]
    pub fn start() -> Self {
        Self(Stopwatch::start())
    }
}

impl ipu_sim::device::Clock for HostClock {
    fn now(&self) -> Duration {
        self.0.0.elapsed()
    }

    fn sleep(&self, pause: Duration) {
        std::thread::sleep(pause);
    }
}

/// A moment in UTC, to the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date {
    /// Year of the Gregorian calendar.
    pub year: u64,
    /// Month, from 1.
    pub month: u64,
    /// Day of the month, from 1.
    pub day: u64,
    /// Hour.
    pub hour: u64,
    /// Minute.
    pub minute: u64,
    /// Second.
    pub second: u64,
}

impl Date {
    /// The present moment.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "this module is the home of the host's clock"
    )]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        // A clock set before 1970 shows the start of 1970.
        Self::from_unix(since.map_or(0, |since| since.as_secs()))
    }

    /// The moment `seconds` after the start of 1970, without leap seconds.
    ///
    /// Days count from March, so that the leap day ends the year; see H. Hinnant,
    /// "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
    #[must_use]
    pub fn from_unix(seconds: u64) -> Self {
        let days = seconds / 86_400 + 719_468;
        let era = days / 146_097;
        let day_of_era = days % 146_097;
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let month = (month_from_march + 2) % 12 + 1;
        let of_day = seconds % 86_400;
        Self {
            year: era * 400 + year_of_era + u64::from(month <= 2),
            month,
            day: day_of_year - (153 * month_from_march + 2) / 5 + 1,
            hour: of_day / 3_600,
            minute: of_day / 60 % 60,
            second: of_day % 60,
        }
    }

    /// Date and time as lines of the log begin: `2021-03-19 18:49:38`.
    #[must_use]
    pub fn log_stamp(&self) -> String {
        let Self {
            year,
            month,
            day,
            hour,
            minute,
            second,
        } = self;
        format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
    }

    /// Date and time as folders of runs are called: `21-03-19-18-49-38`.
    #[must_use]
    pub fn folder_stamp(&self) -> String {
        let Self {
            year,
            month,
            day,
            hour,
            minute,
            second,
        } = self;
        let year = year % 100;
        format!("{year:02}-{month:02}-{day:02}-{hour:02}-{minute:02}-{second:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, log, folder) in [
            (0, "1970-01-01 00:00:00", "70-01-01-00-00-00"),
            (951_782_400, "2000-02-29 00:00:00", "00-02-29-00-00-00"),
            (1_616_179_778, "2021-03-19 18:49:38", "21-03-19-18-49-38"),
            (1_735_689_599, "2024-12-31 23:59:59", "24-12-31-23-59-59"),
        ] {
            let date = Date::from_unix(seconds);
            assert_eq!(date.log_stamp(), log);
            assert_eq!(date.folder_stamp(), folder);
        }
    }
}
