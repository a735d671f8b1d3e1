//! The worker that compiles what is to be kept: started when there is something to compile, and again after it was lost.

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use super::super::deaths::Deaths;
use super::super::supervise::{Household, Supervisor};
use super::super::words::Trade;
use super::{Compiler, Fleet, Inner, PAUSE, Stage};
use crate::config::Config;
use crate::exit::ExitCode;

impl Fleet {
    pub(super) fn start_compiler(self: &Arc<Self>, number: u64, household: &Household, config: &Config) {
        let told = self.clone();
        let on_end = move |ended| {
            told.lock().ends.push_back((number, ended));
            told.changed();
        };
        let not_needed = || (self.lock().stage == Stage::Ending).then_some(ExitCode::Ok);
        let started = Supervisor::start(household, config, Trade::Compile, Box::new(on_end), &not_needed);
        let compiler = match started {
            Ok(Ok(supervisor)) => Compiler::There(number, Arc::new(supervisor)),
            Ok(Err(_)) => Compiler::None,
            Err(error) => {
                log::warn!("there is no worker that compiles: {error}");
                Compiler::None
            }
        };
        self.lock().compiler = compiler;
        self.changed();
    }

    /// The life of the thread that has sources compiled.
    pub(super) fn keep_compiling(&self, household: &Household) {
        let mut deaths = Deaths::default();
        while let Some(job) = household.compilations.take() {
            let compiler = self.compiler();
            let compiled = compiler.as_ref().map(|compiler| compiler.compile(household, &job));
            if let Some(Err(e)) = &compiled {
                log::warn!("the worker that compiles is ended, and a handler is not kept: {e}");
                compiler.iter().for_each(|compiler| compiler.end());
            }
            household.compilations.done();
            let now = Instant::now();
            let too_many_are_lost = match compiled {
                Some(Ok(())) => {
                    deaths.one_is_born();
                    false
                }
                Some(Err(_)) => deaths.one_more(now),
                // what there is none of now may be there a little later
                None => {
                    self.pause();
                    deaths.one_more_unborn(now)
                }
            };
            if too_many_are_lost && self.lock().stage == Stage::Serving {
                log::error!(
                    "workers that compile are lost one after the other: compiled handlers are not kept any more"
                );
                household.compilations.close();
            }
        }
    }

    /// Until another one is tried. It is over when nobody is needed any more.
    fn pause(&self) {
        let waits = |inner: &mut Inner| inner.stage != Stage::Ending;
        drop(self.changed.wait_timeout_while(self.lock(), PAUSE, waits));
    }

    /// The worker that compiles, which is started where there is none. None: there will be none.
    fn compiler(&self) -> Option<Arc<Supervisor>> {
        let (mut inner, mut asked) = (self.lock(), false);
        loop {
            match &inner.compiler {
                Compiler::There(_, compiler) if !compiler.is_gone() => return Some(compiler.clone()),
                // whoever makes workers takes it away
                Compiler::There(..) => {}
                Compiler::None if asked => return None,
                Compiler::None => {
                    (inner.compiler, asked) = (Compiler::Wanted, true);
                    self.changed.notify_all();
                }
                Compiler::Wanted => {}
            }
            if inner.stage == Stage::Ending {
                return None;
            }
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
