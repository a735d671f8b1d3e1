//! No source makes a step of the analysis take more than its share: eight times the text takes about eight times as long.
//!
//! What counts is the ratio of the processor's time for two sizes in the same thread, the least of some turns, so that a busy
//! machine changes nothing. A step that is quadratic takes sixty-four times as long.

use std::time::Duration;

use nexus_protocol::message::SuspendMode;
use oxc_allocator::Allocator;

use super::super::nesting::Refusal;
use super::super::pace::Pace;
use super::super::parse::Grammar;
use super::super::{AnalysisError, analyze, erase, fingerprint, nesting, parse, scope, style, walk};
use super::sources;
use crate::os::thread_cpu_time;
use crate::token::{StopCause, StopToken};

const SMALL_BYTES: usize = LARGE_BYTES / 8;
/// No text of this size has more tokens than are parsed. Without optimization everything takes ten times as long: then less shows as
/// much.
const LARGE_BYTES: usize = if cfg!(debug_assertions) { 64 << 10 } else { 512 << 10 };
/// Linear is 8; caches that a large tree does not fit make up to twice of that.
const MOST: u32 = 24;
/// What takes less than this altogether does nobody harm, however it grows.
const HARMLESS: Duration = Duration::from_millis(20);
const TURNS: usize = 8;
/// What is this far off is not worth another turn: no noise makes that of it.
const HOPELESS: u32 = 2 * MOST;

fn taken(source: &str) -> Duration {
    let started = thread_cpu_time();
    let _ = analyze(source, None, &StopToken::new());
    thread_cpu_time() - started
}

#[test]
fn eight_times_the_text_takes_about_eight_times_as_long() {
    let mut faults = Vec::new();
    for (name, make) in sources::all() {
        let (small_source, large_source) = (make(SMALL_BYTES), make(LARGE_BYTES));
        let (mut small, mut large) = (Duration::MAX, Duration::MAX);
        // more turns only where the first ones look bad
        for _ in 0..TURNS {
            large = large.min(taken(&large_source));
            if large <= HARMLESS {
                break;
            }
            small = small.min(taken(&small_source));
            if large <= small * MOST || large > small * HOPELESS {
                break;
            }
        }
        if large > HARMLESS && large > small * MOST {
            faults.push(format!("{name}: {small:?} and {large:?}"));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn whatever_the_text_an_analysis_without_time_ends_at_once() {
    let token = StopToken::new();
    token.stop(StopCause::Cancelled);
    for (name, make) in sources::all() {
        match analyze(&make(LARGE_BYTES / 8), None, &token) {
            Err(AnalysisError::Stopped(cause)) => assert_eq!(cause, StopCause::Cancelled),
            // refused before the first look
            Err(AnalysisError::Syntax(_)) => {}
            // one lexeme, or left to QuickJS before the first look
            Ok(analysis) => assert!(analysis.unparsed.is_some(), "{name} was analyzed to its end"),
        }
    }
}

/// A token that is over from the start is heard by every step that walks over a text or a tree.
#[test]
fn every_step_looks_for_itself() {
    let source = sources::repeated(&("", "f<T,U>(a);let a~:T=$state.b~ as U;{var c~}\n", ""), 64 << 10);
    let (allocator, text, free, over) =
        (Allocator::default(), parse::wrap(&source), StopToken::new(), StopToken::new());
    over.stop(StopCause::Cancelled);
    const STOPPED: StopCause = StopCause::Cancelled;
    let tree = parse::parse(&allocator, &text, Grammar::TypeScript).ok().unwrap().body;
    let found = erase::find(tree, &text, &free).unwrap();
    let tokens = parse::tokens(&allocator, &text);
    assert_eq!(nesting::extent(&source, &over), Err(Refusal::Stopped(STOPPED)));
    assert_eq!(erase::find(tree, &text, &over).err(), Some(STOPPED));
    assert_eq!(erase::erase(&text, &tokens, &found, &over), Err(STOPPED));
    assert_eq!(fingerprint::same_program(tree, tree, &over), Err(STOPPED));
    assert_eq!(style::mention(tree, &text, &over).err(), Some(STOPPED));
    assert_eq!(walk::walk(tree, SuspendMode::Await, &over).err(), Some(STOPPED));
    let source = parse::wrap(&sources::repeated(&("", "{var a~}", ""), 64 << 10));
    let tree = parse::parse(&allocator, &source, Grammar::TypeScript).ok().unwrap().body;
    let names = |token| scope::function_names(&tree.statements, true, &mut Pace::new(token)).0.len();
    assert!(names(&over) < 300 && names(&free) > 5000, "{} of {}", names(&over), names(&free));
}
