//! Where values of the state may be when something is written to: `const u = $state.user; u.name = 'x'` writes the state.
//!
//! Everything that may hold a value is a place: a variable, what a function takes and returns, what a call works with. Where a
//! value may go from one place to another, the two become one. At the end, the keys whose values may be in a place that was
//! written to are keys that may be written. No order, no conditions, no difference between an object and what is in it, but
//! for one: a variable that only ever names objects which the handler makes itself may be written to without anything being
//! done to what those objects hold: `out.push($state.a)`, `total[k] = 1`.
//!
//! Invariants: joining and asking take next to constant time each; nothing here is certain, so every key that comes out is a
//! need that may be.

use super::fresh::Fresh;
use super::path::Step;
use super::scope::Binding;

/// A place for values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u32);

/// What the handler does with a variable.
#[derive(Clone, Copy)]
struct Variable {
    place: Place,
    /// The least that is known of the objects that it names.
    names: Fresh,
    /// A property of such an object is written.
    written: bool,
}

/// Places so far.
pub(super) struct Flow<'a> {
    parents: Vec<u32>,
    written: Vec<bool>,
    /// What is there is called.
    called: Vec<bool>,
    variables: Vec<Option<Variable>>,
    /// Values of the state that were put somewhere, and where their need stands.
    values: Vec<(Place, Step<'a>, u32)>,
    /// Of these, those that may be methods.
    methods: Vec<(Place, u32)>,
    rejects: Vec<Place>,
    /// Written, unless a method makes a new object as the built-in one of its name does.
    by_method: Vec<Place>,
    /// The handler has methods that are called like built-in ones.
    pub(super) own_methods: bool,
    /// Something may be written that cannot be told: a built-in was changed, or a method that writes went astray.
    pub(super) anything: bool,
    /// What nothing in the handler declares.
    pub(super) undeclared: Place,
    /// What is thrown.
    pub(super) thrown: Place,
    /// What the handler puts into the state itself.
    pub(super) stored: Place,
    /// What it puts into values of the state by their methods, to be found again in there: `$state.items.push(value)`.
    pub(super) inner: Place,
}

impl<'a> Flow<'a> {
    pub(super) fn new() -> Self {
        Self {
            parents: vec![0, 1, 2, 3],
            written: vec![false; 4],
            called: vec![false; 4],
            variables: Vec::new(),
            values: Vec::new(),
            methods: Vec::new(),
            rejects: Vec::new(),
            by_method: Vec::new(),
            own_methods: false,
            anything: false,
            undeclared: Place(0),
            thrown: Place(1),
            stored: Place(2),
            inner: Place(3),
        }
    }

    pub(super) fn place(&mut self) -> Place {
        let place = self.parents.len() as u32;
        self.parents.push(place);
        self.written.push(false);
        self.called.push(false);
        Place(place)
    }

    fn root(&mut self, place: Place) -> usize {
        let mut at = place.0 as usize;
        while let Some(&parent) = self.parents.get(at)
            && parent as usize != at
        {
            // half of the way is cut each time
            let grand = self.parents.get(parent as usize).copied().unwrap_or(parent);
            if let Some(slot) = self.parents.get_mut(at) {
                *slot = grand;
            }
            at = grand as usize;
        }
        at
    }

    /// Values go between these two.
    pub(super) fn join(&mut self, a: Place, b: Place) {
        let (a, b) = (self.root(a), self.root(b));
        if a == b {
            return;
        }
        let is = |marks: &[bool]| [a, b].iter().any(|at| marks.get(*at).copied().unwrap_or_default());
        let (is_written, is_called) = (is(&self.written), is(&self.called));
        if let (Some(parent), Some(written), Some(called)) =
            (self.parents.get_mut(a), self.written.get_mut(b), self.called.get_mut(b))
        {
            (*parent, *written, *called) = (b as u32, is_written, is_called);
        }
    }

    /// A value of the state goes there.
    pub(super) fn value(&mut self, place: Place, key: Step<'a>, position: u32) {
        self.values.push((place, key, position));
    }

    /// What is there may be a method of the state: `$state[name]`.
    pub(super) fn maybe_method(&mut self, place: Place, position: u32) {
        self.methods.push((place, position));
    }

    /// Something that is there is called, by a name that is no method's of data.
    pub(super) fn call(&mut self, place: Place) {
        let root = self.root(place);
        if let Some(called) = self.called.get_mut(root) {
            *called = true;
        }
    }

    /// What is there may be a promise, with which somebody waits for what is thrown. Known at the end: till then what many wait for
    /// is not one thing.
    pub(super) fn may_reject(&mut self, place: Place) {
        self.rejects.push(place);
    }

    /// Something that is there is written to.
    pub(super) fn write(&mut self, place: Place, fresh: Fresh) {
        match fresh {
            Fresh::Made => {}
            Fresh::ByMethod => self.by_method.push(place),
            Fresh::Old => {
                let root = self.root(place);
                if let Some(written) = self.written.get_mut(root) {
                    *written = true;
                }
            }
        }
    }

    // ---- variables ----

    fn variable(&mut self, binding: Binding) -> Variable {
        let index = binding.index();
        if let Some(Some(known)) = self.variables.get(index) {
            return *known;
        }
        let new = Variable { place: self.place(), names: Fresh::Made, written: false };
        if self.variables.len() <= index {
            self.variables.resize(index + 1, None);
        }
        if let Some(slot) = self.variables.get_mut(index) {
            *slot = Some(new);
        }
        new
    }

    fn change(&mut self, binding: Binding, change: impl FnOnce(&mut Variable)) {
        self.variable(binding);
        if let Some(Some(variable)) = self.variables.get_mut(binding.index()) {
            change(variable);
        }
    }

    pub(super) fn of(&mut self, binding: Binding) -> Place {
        self.variable(binding).place
    }

    /// It comes to name something else.
    pub(super) fn assigned(&mut self, binding: Binding, fresh: Fresh) {
        self.change(binding, |variable| variable.names = variable.names.and(fresh));
    }

    /// A property of what it names is written.
    pub(super) fn property_written(&mut self, binding: Binding) {
        self.change(binding, |variable| variable.written = true);
    }

    fn is_written(&mut self, place: Place) -> bool {
        let root = self.root(place);
        self.written.get(root).copied().unwrap_or_default()
    }

    /// A value that was put into another one of the state is written to where that one is, if it is.
    fn settle_inner(&mut self, values: &[(Place, Step<'a>, u32)]) {
        let inner = self.root(self.inner);
        if !values.iter().any(|(place, ..)| self.root(*place) == inner) {
            return;
        }
        if self.is_written(self.inner) || values.iter().any(|(place, ..)| self.is_written(*place)) {
            values.iter().for_each(|(place, ..)| self.join(*place, self.inner));
            self.write(self.inner, Fresh::Old);
        }
    }

    /// What is thrown goes somewhere: then what is waited for may go there too.
    fn settle_rejections(&mut self) {
        let (thrown, stored, undeclared) = (self.root(self.thrown), self.root(self.stored), self.root(self.undeclared));
        let is = |marks: &[bool]| marks.get(thrown).copied().unwrap_or_default();
        if thrown == stored || thrown == undeclared || is(&self.written) || is(&self.called) {
            for place in std::mem::take(&mut self.rejects) {
                self.join(place, self.thrown);
            }
        }
    }

    /// Where methods of the state may be called by other names.
    pub(super) fn called_methods(&mut self) -> Vec<u32> {
        self.settle_rejections();
        let methods = std::mem::take(&mut self.methods);
        let is_called = |(place, _): &(Place, u32)| {
            let root = self.root(*place);
            self.called.get(root).copied().unwrap_or_default()
        };
        methods.into_iter().filter(is_called).map(|(_, position)| position).collect()
    }

    /// The keys of the state that may be written this way, and where.
    pub(super) fn written_keys(mut self) -> Vec<(Step<'a>, u32)> {
        for variable in std::mem::take(&mut self.variables).into_iter().flatten() {
            if variable.written {
                self.write(variable.place, variable.names);
            }
        }
        self.settle_rejections();
        if self.own_methods {
            for place in std::mem::take(&mut self.by_method) {
                self.write(place, Fresh::Old);
            }
        }
        let values = std::mem::take(&mut self.values);
        // a value that was put under another key is found there too
        let stored = self.root(self.stored);
        if values.iter().any(|(place, ..)| self.root(*place) == stored) {
            values.iter().for_each(|(place, ..)| self.join(*place, self.stored));
        }
        self.settle_inner(&values);
        let anything = self.anything;
        let mut written = |place| anything || self.is_written(place);
        values.into_iter().filter(|(place, ..)| written(*place)).map(|(_, key, position)| (key, position)).collect()
    }
}
