//! Which calls of a function are made without a frame of its own on the shadow stack.
//!
//! A function lowers the stack pointer by a constant when it makes its frame and raises it again when it leaves. Compilers
//! put that inside branches where only those need the frame, and inline functions with their frames; so this follows the
//! control flow and keeps, at each place, by how many bytes at least the pointer is lower than at entry. What cannot be told
//! counts as nothing, and so does a frame of variable size (`alloca`), which may be empty.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use wasmparser::Operator;

/// Calls made with the pointer possibly as it was at entry.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct FramelessCalls {
    /// Functions, by index.
    pub direct: BTreeSet<u32>,
    /// Types of indirect calls.
    pub indirect: BTreeSet<u32>,
}

/// What is known at one place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Known {
    /// The pointer is at least so many bytes lower than at entry.
    lowered: u32,
    /// The same of locals that hold a copy of it, now or earlier.
    locals: BTreeMap<u32, u32>,
}

impl Known {
    /// What is known where two paths meet.
    fn meet(&mut self, other: &Self) {
        self.lowered = self.lowered.min(other.lowered);
        self.locals.retain(|local, lowered| {
            let both = other.locals.get(local).map(|theirs| *theirs.min(lowered));
            *lowered = both.unwrap_or(0);
            both.is_some()
        });
    }

    /// By how much the value that these operators leave is at least lower than the pointer was at entry, if it derives
    /// from the pointer at all.
    fn value(&self, before: &[Operator], stack_pointer: u32) -> Option<u32> {
        let (last, before) = before.split_last()?;
        match last {
            Operator::LocalTee { .. } => self.value(before, stack_pointer),
            Operator::GlobalGet { global_index } if *global_index == stack_pointer => Some(self.lowered),
            Operator::LocalGet { local_index } => self.locals.get(local_index).copied(),
            Operator::I32Sub | Operator::I32Add | Operator::I32And => {
                let Some((Operator::I32Const { value }, base)) = before.split_last() else {
                    // An alloca takes some of what is left. Nothing else but constants is ever added to the pointer.
                    return matches!(last, Operator::I32Sub).then_some(self.lowered);
                };
                let base = self.value(base, stack_pointer)?;
                let down = match last {
                    Operator::I32Sub => i64::from(*value),
                    Operator::I32Add => -i64::from(*value),
                    _ => 0,
                };
                Some(u32::try_from((i64::from(base) + down).max(0)).unwrap_or(0))
            }
            _ => None,
        }
    }

    fn set_local(&mut self, local: u32, value: Option<u32>) {
        match value {
            Some(lowered) => self.locals.insert(local, lowered),
            None => self.locals.remove(&local),
        };
    }
}

/// A place that several paths may lead to. None: no path has, so far.
type Meeting = Option<Known>;

fn arrive(place: &mut Meeting, known: &Meeting) {
    match (place.as_mut(), known) {
        (Some(there), Some(known)) => there.meet(known),
        (None, Some(_)) => place.clone_from(known),
        (_, None) => {}
    }
}

/// A construct that is open at the present place.
struct Open {
    /// Where a loop begins: the place to start again from if a round ends knowing less than it began with.
    loop_start: Option<usize>,
    /// At a loop's beginning, or at an `if` for its `else`.
    at_start: Meeting,
    at_end: Meeting,
    /// An `if` whose `else` has not come yet.
    is_if: bool,
}

/// Walks through a function's body.
pub fn frameless_calls(operators: &[Operator], stack_pointer: u32) -> Result<FramelessCalls> {
    let mut calls = FramelessCalls::default();
    let mut now: Meeting = Some(Known::default());
    let mut open = vec![Open { loop_start: None, at_start: None, at_end: None, is_if: false }];
    let mut at = 0;
    while let Some(operator) = operators.get(at) {
        let mut again = None;
        match operator {
            Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } => open.push(Open {
                loop_start: matches!(operator, Operator::Loop { .. }).then_some(at + 1),
                at_start: now.clone(),
                at_end: None,
                is_if: matches!(operator, Operator::If { .. }),
            }),
            Operator::Else => {
                let branch = open.last_mut().context("an else without an if")?;
                arrive(&mut branch.at_end, &now);
                branch.is_if = false;
                now = branch.at_start.take();
            }
            Operator::End => {
                let closed = open.pop().context("an end too many")?;
                arrive(&mut now, &closed.at_end);
                if closed.is_if {
                    // Without an else, what came to the `if` may have passed by.
                    arrive(&mut now, &closed.at_start);
                }
            }
            Operator::Br { relative_depth } => {
                again = jump(&mut open, *relative_depth, &now)?;
                now = None;
            }
            Operator::BrIf { relative_depth } => again = jump(&mut open, *relative_depth, &now)?,
            Operator::BrTable { targets } => {
                for target in targets.targets().chain([Ok(targets.default())]) {
                    again = jump(&mut open, target?, &now)?;
                    if again.is_some() {
                        break;
                    }
                }
                now = None;
            }
            Operator::Return | Operator::Unreachable => now = None,
            Operator::ReturnCall { .. }
            | Operator::ReturnCallIndirect { .. }
            | Operator::CallRef { .. }
            | Operator::ReturnCallRef { .. }
            | Operator::TryTable { .. } => bail!("the gate does not know how to follow {operator:?}"),
            _ => {
                if let Some(known) = &mut now {
                    step(known, &operators[..=at], stack_pointer, &mut calls);
                }
            }
        }
        at += 1;
        if let Some(start) = again {
            // Less is known at that loop's beginning than was believed: it is walked through once more.
            now = open.last().context("a loop outside of everything")?.at_start.clone();
            at = start;
        }
    }
    Ok(calls)
}

/// One operator, the last of these, that does not change the flow of control.
fn step(known: &mut Known, operators: &[Operator], stack_pointer: u32, calls: &mut FramelessCalls) {
    let Some((operator, before)) = operators.split_last() else { return };
    match operator {
        Operator::GlobalSet { global_index } if *global_index == stack_pointer => {
            known.lowered = known.value(before, stack_pointer).unwrap_or(0);
        }
        Operator::LocalSet { local_index } | Operator::LocalTee { local_index } => {
            known.set_local(*local_index, known.value(before, stack_pointer));
        }
        Operator::Call { function_index } if known.lowered == 0 => {
            calls.direct.insert(*function_index);
        }
        Operator::CallIndirect { type_index, .. } if known.lowered == 0 => {
            calls.indirect.insert(*type_index);
        }
        _ => {}
    }
}

/// A branch: to the end of a block, or back to the beginning of a loop. Returns that beginning if the loop has to be walked
/// through again.
fn jump(open: &mut Vec<Open>, depth: u32, now: &Meeting) -> Result<Option<usize>> {
    let index = open.len().checked_sub(1 + depth as usize).context("a branch to nowhere")?;
    let target = &mut open[index];
    let Some(start) = target.loop_start else {
        arrive(&mut target.at_end, now);
        return Ok(None);
    };
    let believed = target.at_start.clone();
    arrive(&mut target.at_start, now);
    if target.at_start == believed {
        return Ok(None);
    }
    open.truncate(index + 1);
    Ok(Some(start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasmparser::BlockType;

    const SET: Operator = Operator::GlobalSet { global_index: 0 };
    const GET: Operator = Operator::GlobalGet { global_index: 0 };
    const BLOCK: Operator = Operator::Block { blockty: BlockType::Empty };
    const IF: Operator = Operator::If { blockty: BlockType::Empty };
    const LOOP: Operator = Operator::Loop { blockty: BlockType::Empty };

    fn call(function_index: u32) -> Operator<'static> {
        Operator::Call { function_index }
    }

    fn lower() -> Vec<Operator<'static>> {
        vec![GET, Operator::I32Const { value: 16 }, Operator::I32Sub, Operator::LocalTee { local_index: 1 }, SET]
    }

    fn raise() -> Vec<Operator<'static>> {
        vec![Operator::LocalGet { local_index: 1 }, Operator::I32Const { value: 16 }, Operator::I32Add, SET]
    }

    fn found(parts: &[&[Operator<'static>]]) -> Vec<u32> {
        frameless_calls(&parts.concat(), 0).unwrap().direct.into_iter().collect()
    }

    #[test]
    fn calls_inside_the_frame_do_not_count() {
        assert_eq!(found(&[&[call(1)], &lower(), &[call(2)], &raise(), &[call(3), Operator::End]]), [1, 3]);
    }

    #[test]
    fn a_frame_in_one_branch_says_nothing_of_what_follows() {
        let calls = found(&[&[IF], &lower(), &[call(1), Operator::End, call(2), Operator::End]]);
        assert_eq!(calls, [2]);
    }

    #[test]
    fn frames_in_both_branches_hold_for_what_follows() {
        let calls = found(&[&[IF], &lower(), &[Operator::Else], &lower(), &[Operator::End, call(2), Operator::End]]);
        assert!(calls.is_empty());
    }

    #[test]
    fn a_branch_past_the_frame_is_followed() {
        let past = Operator::BrIf { relative_depth: 0 };
        assert_eq!(found(&[&[BLOCK, past], &lower(), &[call(1), Operator::End, call(2), Operator::End]]), [2]);
    }

    #[test]
    fn a_loop_that_ends_its_round_without_the_frame_begins_the_next_one_without() {
        let again = Operator::BrIf { relative_depth: 0 };
        let calls = found(&[&lower(), &[LOOP, call(1)], &raise(), &[again, Operator::End, Operator::End]]);
        assert_eq!(calls, [1]);
    }

    #[test]
    fn a_frame_inside_a_frame_leaves_the_outer_one() {
        let inner =
            [GET, Operator::I32Const { value: 8 }, Operator::I32Sub, Operator::LocalTee { local_index: 2 }, SET];
        let left = [Operator::LocalGet { local_index: 2 }, Operator::I32Const { value: 8 }, Operator::I32Add, SET];
        assert_eq!(found(&[&lower(), &inner, &left, &[call(1)], &raise(), &[call(2), Operator::End]]), [2]);
    }

    #[test]
    fn a_frame_of_variable_size_does_not_count() {
        let alloca = [GET, Operator::LocalGet { local_index: 0 }, Operator::I32Sub, SET];
        assert_eq!(found(&[&alloca, &[call(1), Operator::End]]), [1]);
        assert!(found(&[&lower(), &alloca, &[call(1), Operator::End]]).is_empty());
    }
}
