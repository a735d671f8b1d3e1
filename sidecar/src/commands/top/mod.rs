//! `top`: the executions of a running sidecar, again and again or once; and the end of one.
//!
//! With a terminal on both ends it is a screen with keys (`screen`, `view`), else plain text that nothing drives.

mod entry;
mod run;
mod screen;
mod view;

use run::{end, executions};

pub(super) use run::top;
