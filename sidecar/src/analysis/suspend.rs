//! Promise style or stack style (CONTRACT 5), from where the `$ext` calls of a handler stand.
//!
//! A call stands where a promise is expected if it is
//! - the operand of `await`, or of `void` (which says that nobody waits), or of `yield` in an async generator;
//! - an element of the list that `Promise.all`, `allSettled`, `race` or `any` gets, the argument of `Promise.resolve`, or
//!   what `for await` iterates over;
//! - the receiver of `.then`, `.catch`, `.finally`;
//! - returned from the handler, an async function, or a function whose own calls all stand like this.
//!
//! Parentheses, types, branches of `?:`, the right side of `&&`, `||`, `??` and the last part of a comma expression make no
//! difference. Everything else is a use of the value: a variable, an operand, a property access, an argument. Some cases
//! that are a matter of judgement:
//! - an expression statement `$ext.log.write(x)` is stack style: it waits, and a failure is thrown where the call stands;
//!   the other reading would run on, and lose the failure;
//! - `sort`, `filter`, `reduce`, `replace`, getters, Proxy traps... need what their callbacks return at once: stack style;
//! - `map` and its kind are promise style if the list goes to a combinator, directly or by a variable that is used for
//!   nothing else; else stack style.
//!
//! Invariant: when in doubt, stack style. There `await` of a value and a combinator of values do what they should; a
//! promise in the place of a value never does.

use std::collections::{BTreeMap, BTreeSet};

use nexus_protocol::message::SuspendMode;

use super::scope::Binding;

/// What becomes of an expression's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// It is used.
    Value,
    /// Only its truth, type or identity is looked at.
    Test,
    /// Nothing.
    Unused,
    /// It is awaited, or handed to somebody who will.
    Promise,
    /// Its elements are awaited.
    List,
    /// This function returns it.
    Returned(Binding),
    /// This variable starts with it.
    Kept(Binding),
    /// It becomes an element of the list that this variable starts with.
    Element(Binding),
}

impl Want {
    /// For what a function returns whose call has this want.
    pub(super) fn of_result(self) -> Self {
        match self {
            Self::Kept(_) | Self::Element(_) | Self::Test | Self::Unused => Self::Value,
            other => other,
        }
    }
}

/// How the calls of a handler stand, as far as has been seen.
#[derive(Default)]
pub(super) struct Standing {
    pub(super) extension_calls: bool,
    value_needed: bool,
    /// Functions that return what an extension call gave.
    returns_call: BTreeSet<Binding>,
    /// Calls of local functions.
    local_calls: Vec<(Binding, Want)>,
    /// Variables that hold lists of extension calls, and how lists are used.
    lists: BTreeSet<Binding>,
    list_uses: BTreeSet<Binding>,
    other_uses: BTreeSet<Binding>,
}

impl Standing {
    /// An extension call.
    pub(super) fn extension_call(&mut self, want: Want) {
        self.extension_calls = true;
        self.stands(want);
    }

    /// `$ext`, or part of it, went where its calls cannot be seen.
    pub(super) fn extension_escapes(&mut self) {
        self.extension_calls = true;
        self.value_needed = true;
    }

    /// A call of a function that the handler declares.
    pub(super) fn local_call(&mut self, function: Binding, want: Want) {
        self.local_calls.push((function, want));
    }

    /// A use of a variable.
    pub(super) fn variable(&mut self, variable: Binding, want: Want) {
        if want == Want::List { &mut self.list_uses } else { &mut self.other_uses }.insert(variable);
    }

    fn stands(&mut self, want: Want) {
        match want {
            Want::Promise => {}
            Want::Returned(function) => {
                self.returns_call.insert(function);
            }
            Want::Element(list) => {
                self.lists.insert(list);
            }
            Want::Value | Want::Test | Want::Unused | Want::List | Want::Kept(_) => self.value_needed = true,
        }
    }

    /// The mode that the handler needs.
    pub(super) fn mode(mut self) -> SuspendMode {
        if !self.extension_calls {
            return SuspendMode::Await;
        }
        // a function that returns a call of such a function is one itself
        let mut callers: BTreeMap<Binding, Vec<Binding>> = BTreeMap::new();
        for (function, want) in &self.local_calls {
            if let Want::Returned(by) = want {
                callers.entry(*function).or_default().push(*by);
            }
        }
        let mut open: Vec<Binding> = self.returns_call.iter().copied().collect();
        while let Some(function) = open.pop() {
            for by in callers.get(&function).into_iter().flatten() {
                if self.returns_call.insert(*by) {
                    open.push(*by);
                }
            }
        }
        for (function, want) in std::mem::take(&mut self.local_calls) {
            if self.returns_call.contains(&function) {
                self.stands(want);
            }
        }
        let lists_are_lists =
            self.lists.iter().all(|list| self.list_uses.contains(list) && !self.other_uses.contains(list));
        if self.value_needed || !lists_are_lists { SuspendMode::Stack } else { SuspendMode::Await }
    }
}

/// What callers of a method do with what its callback returns; `want` is what becomes of the method's own result.
pub(super) fn callback_want(method: &str, want: Want) -> Want {
    match method {
        "map" | "flatMap" | "from" => match want {
            Want::List | Want::Returned(_) => Want::Promise,
            Want::Kept(list) => Want::Element(list),
            _ => Want::Value,
        },
        "forEach" => Want::Unused,
        "sort" | "toSorted" | "filter" | "find" | "findIndex" | "findLast" | "findLastIndex" | "some" | "every"
        | "reduce" | "reduceRight" | "replace" | "replaceAll" | "parse" | "stringify" | "groupBy" | "update" => {
            Want::Value
        }
        _ => Want::Promise,
    }
}

/// Methods that the language calls, and whose value it uses.
pub(super) fn is_called_for_its_value(name: &str) -> bool {
    matches!(name, "toString" | "valueOf" | "toJSON")
}
