//! All workers, as the main thread looks after them and as HTTP tells of them.
//!
//! Where all connections share a worker, how that one is is how the sidecar is. Where each has its own, one that stands still or lies is
//! its own client's trouble: the sidecar is as well as any of them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::gather::merged;
use super::door::Vacancy;
use super::{Fleet, Plan, Stage};
use crate::lifecycle::Served;
use crate::server::Pulse;

impl Served for Fleet {
    fn drain(&self) {
        let mut inner = self.lock();
        if inner.stage == Stage::Serving {
            inner.stage = Stage::Draining;
        }
        let serving = inner.serving.clone();
        drop(inner);
        self.changed();
        for worker in serving {
            worker.supervisor.drain();
        }
    }

    fn is_draining(&self) -> bool {
        self.lock().stage != Stage::Serving
    }

    fn prod(&self) {
        for worker in self.all() {
            worker.supervisor.prod();
        }
    }

    fn pulse(&self) -> Option<Pulse> {
        if !matches!(self.plan, Plan::Each(_)) {
            return self.incumbent()?.supervisor.pulse();
        }
        // one that stands still is its client's trouble
        let answers = self.with_each(|worker| worker.supervisor.pulse().is_some());
        if !answers.is_empty() && !answers.contains(&true) {
            return None;
        }
        let beats = self.beats.fetch_add(1, Ordering::Relaxed) + 1;
        Some(Pulse { polls: beats, ticks: beats })
    }

    fn has_stuck_run(&self) -> bool {
        !matches!(self.plan, Plan::Each(_)) && self.incumbent().is_some_and(|worker| worker.supervisor.has_stuck_run())
    }

    fn is_alive(&self, patience: Duration) -> bool {
        if matches!(self.plan, Plan::Each(_)) {
            return self.with_each(|worker| worker.supervisor.is_alive(patience)).contains(&true);
        }
        self.incumbent().is_some_and(|worker| worker.supervisor.is_alive(patience))
    }

    fn prometheus(&self) -> Option<String> {
        let (serving, spare, lost) = {
            let inner = self.lock();
            (inner.serving.len(), usize::from(inner.spare.is_some()), inner.lost)
        };
        let mut text = match self.plan {
            Plan::Parent | Plan::All => self.incumbent()?.supervisor.prometheus()?,
            Plan::Each(_) => {
                let told = self.with_each(|worker| Some((worker.slot, worker.supervisor.prometheus()?)));
                merged(&told.into_iter().flatten().collect::<Vec<_>>())
            }
        };
        text.push_str(&format!(
            "# HELP nexus_workers Processes in which guests run: those with clients, and those that stand ready.\n\
             # TYPE nexus_workers gauge\n\
             nexus_workers{{state=\"serving\"}} {serving}\nnexus_workers{{state=\"spare\"}} {spare}\n\
             # HELP nexus_workers_lost_total Workers that were ended from outside or by what they did.\n\
             # TYPE nexus_workers_lost_total counter\nnexus_workers_lost_total {lost}\n"
        ));
        Some(text)
    }

    fn is_ready(&self) -> bool {
        match self.vacancy() {
            Vacancy::With(worker) => worker.supervisor.is_ready(),
            Vacancy::Soon | Vacancy::Full | Vacancy::NoneCanBeMade | Vacancy::Closed => {
                self.plan == Plan::Parent && self.incumbent().is_some()
            }
        }
    }

    fn walls(&self) -> String {
        let words = self.plan.words();
        match self.all().first() {
            Some(worker) => format!("{words}{}", worker.supervisor.walls()),
            None => format!("{words}which is not there"),
        }
    }
}
