//! How far a copy is: a bar for who watches, a line now and then for a log, nothing beside JSON.

use std::time::{Duration, Instant};

use hub_storage::copy::{Done, Totals};
use indicatif::{ProgressBar, ProgressStyle};

use super::{Failure, output};
use crate::client::source;

/// The least time between two lines.
const BETWEEN: Duration = Duration::from_secs(5);

pub(super) struct Progress {
    bar: ProgressBar,
    /// Lines are wanted; when the last one was.
    lines: Option<Instant>,
    begun: bool,
}

impl Progress {
    /// `shown` if people read what the command prints.
    pub(super) fn new(shown: bool) -> Result<Self, Failure> {
        let watched = shown && output::is_watched();
        let bar = if watched {
            let style = "{bar:40} {human_pos}/{human_len} messages, {per_sec}, {eta} left";
            let style = ProgressStyle::with_template(style).map_err(Failure::failed)?;
            ProgressBar::new(0).with_style(style)
        } else {
            ProgressBar::hidden()
        };
        Ok(Self { bar, lines: (shown && !watched).then(source::instant), begun: false })
    }

    pub(super) fn show(&mut self, done: &Done, all: &Totals) {
        if !self.begun {
            self.begun = true;
            self.bar.set_length(all.messages);
            self.bar.set_position(done.messages);
            // What an earlier run has written says nothing of this one's speed.
            self.bar.reset_eta();
            if done.messages > 0 && (self.lines.is_some() || !self.bar.is_hidden()) {
                let text = format!("going on after {} of {} messages", done.messages, all.messages);
                self.bar.suspend(|| output::note(&text));
            }
        }
        self.bar.set_position(done.messages);
        if let Some(last) = &mut self.lines
            && last.elapsed() >= BETWEEN
        {
            *last = source::instant();
            output::note(&format!("{} of {} messages", done.messages, all.messages));
        }
    }

    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
