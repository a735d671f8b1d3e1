//! What the screen of `top` shows and what its keys mean. Pure: entries and keys in, lines and wishes out.
//!
//! Invariants: the chosen row is an execution, not a place: it stays chosen wherever sorting puts it. Nothing is ended
//! without a `y` that follows the question about that very execution. A frame never has more lines or columns than asked.

use super::entry::{Entries, Entry, HEADER};

const KEYS: &str = "up/down choose  x end it  s sort  q quit";

#[derive(Debug, Default)]
pub(super) struct View {
    entries: Entries,
    sort: Sort,
    /// The chosen execution.
    chosen: Option<u64>,
    /// Where it was, for when it is gone.
    row: usize,
    /// The first entry that is shown.
    top: usize,
    mode: Mode,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Sort {
    #[default]
    Id,
    Age,
    Cpu,
    Memory,
    State,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Mode {
    #[default]
    Looking,
    /// Whether to end this one.
    Asking(u64),
    /// Something to read until the next key.
    Telling(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
    Char(char),
    Escape,
    Interrupt,
}

/// What a key asks for, beyond another look of the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Nothing,
    Quit,
    End(u64),
}

/// One line of the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub text: String,
    /// It stands out, where the terminal can do that; the text says the same.
    pub chosen: bool,
}

impl Sort {
    const ALL: [(Self, &'static str); 5] =
        [(Self::Id, "id"), (Self::Age, "age"), (Self::Cpu, "CPU"), (Self::Memory, "memory"), (Self::State, "state")];

    fn next(self) -> Self {
        let at = Self::ALL.iter().position(|(sort, _)| *sort == self).unwrap_or(0);
        Self::ALL.get(at + 1).map_or(Self::Id, |(sort, _)| *sort)
    }

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(sort, _)| *sort == self).map_or("", |(_, name)| name)
    }

    /// The largest first, but for ids and states.
    fn apply(self, list: &mut [Entry]) {
        match self {
            Self::Id => list.sort_by_key(|e| e.id),
            Self::Age => list.sort_by_key(|e| (std::cmp::Reverse(e.age_ms), e.id)),
            Self::Cpu => list.sort_by_key(|e| (std::cmp::Reverse(e.cpu_us), e.id)),
            Self::Memory => list.sort_by_key(|e| (std::cmp::Reverse(e.memory_bytes), e.id)),
            Self::State => list.sort_by_key(|e| (e.state, e.id)),
        }
    }
}

impl View {
    pub(super) fn show(&mut self, entries: Entries) {
        self.entries = entries;
        self.arrange();
    }

    pub(super) fn tell(&mut self, text: String) {
        self.mode = Mode::Telling(text);
    }

    /// `page` is how many entries fit.
    pub(super) fn press(&mut self, key: Key, page: usize) -> Wish {
        if let Mode::Asking(id) = self.mode {
            self.mode = Mode::Looking;
            return match key {
                Key::Char('y' | 'Y') => Wish::End(id),
                Key::Interrupt => Wish::Quit,
                _ => Wish::Nothing,
            };
        }
        self.mode = Mode::Looking;
        let last = self.entries.list.len().saturating_sub(1);
        let page = page.max(1);
        match key {
            Key::Char('q') | Key::Interrupt => return Wish::Quit,
            Key::Up | Key::Char('k') => self.choose(self.row.saturating_sub(1)),
            Key::Down | Key::Char('j') => self.choose((self.row + 1).min(last)),
            Key::PageUp => self.choose(self.row.saturating_sub(page)),
            Key::PageDown => self.choose((self.row + page).min(last)),
            Key::First | Key::Char('g') => self.choose(0),
            Key::Last | Key::Char('G') => self.choose(last),
            Key::Char('s') => {
                self.sort = self.sort.next();
                self.arrange();
            }
            Key::Char('x' | 'K') => {
                if let Some(id) = self.chosen {
                    self.mode = Mode::Asking(id);
                }
            }
            Key::Char(_) | Key::Escape => {}
        }
        Wish::Nothing
    }

    /// How many entries fit into a screen of so many lines.
    pub(super) fn page(rows: usize) -> usize {
        rows.saturating_sub(3)
    }

    /// The whole screen: how many there are, the columns, the entries, the keys or a question.
    pub(super) fn frame(&mut self, columns: usize, rows: usize) -> Vec<Line> {
        let page = Self::page(rows);
        self.top = self.top.clamp((self.row + 1).saturating_sub(page.max(1)), self.row);
        let plain = |text: &str| Line { text: text.chars().take(columns).collect(), chosen: false };
        let mut lines = vec![plain(&self.entries.summary()), plain(&format!("  {HEADER}"))];
        let shown = self.entries.list.iter().skip(self.top).take(page);
        lines.extend(shown.map(|entry| {
            let chosen = self.chosen == Some(entry.id);
            Line { chosen, ..plain(&format!("{} {}", if chosen { '>' } else { ' ' }, entry.line())) }
        }));
        lines.resize(rows.saturating_sub(1).max(lines.len()), plain(""));
        // a question is more than the columns, if there is one line only
        lines.truncate(rows.saturating_sub(1));
        lines.push(plain(&self.foot()));
        lines
    }

    fn foot(&self) -> String {
        match &self.mode {
            Mode::Looking => format!("{KEYS}  (by {})", self.sort.name()),
            Mode::Telling(text) => text.clone(),
            Mode::Asking(id) => match self.entries.list.iter().find(|entry| entry.id == *id) {
                Some(entry) => format!("end execution {id}, {}? y/n", entry.handler),
                None => format!("execution {id} has ended meanwhile"),
            },
        }
    }

    fn choose(&mut self, row: usize) {
        self.row = row;
        self.chosen = self.entries.list.get(row).map(|entry| entry.id);
    }

    /// Sorts, and finds the chosen one again; if it is gone, what took its place is chosen.
    fn arrange(&mut self) {
        self.sort.apply(&mut self.entries.list);
        let found = self.chosen.and_then(|id| self.entries.list.iter().position(|entry| entry.id == id));
        let last = self.entries.list.len().saturating_sub(1);
        self.choose(found.unwrap_or(self.row.min(last)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: u64, cpu_us: u64) -> Entry {
        let (handler, client) = ("orders/save".to_owned(), "kernel (pid 9, session 1)".to_owned());
        Entry { id, state: "running", age_ms: 0, cpu_us, memory_bytes: Some(cpu_us), pending_calls: 0, handler, client }
    }

    fn view(count: u64) -> View {
        let mut view = View::default();
        view.show(Entries { list: (1..=count).map(|id| entry(id, 100 - id)).collect(), total: count });
        view
    }

    fn text(view: &mut View, columns: usize, rows: usize) -> String {
        let lines = view.frame(columns, rows);
        lines.into_iter().map(|line| line.text + "\n").collect()
    }

    #[test]
    fn eighty_columns_hold_every_column_and_the_keys() {
        let text = text(&mut view(2), 80, 24);
        assert_eq!(text.lines().count(), 24);
        assert!(text.contains(">       1 running       0 us    99 us   99 bytes     0 orders/save"), "{text}");
        assert!(text.ends_with("up/down choose  x end it  s sort  q quit  (by id)\n"), "{text}");
    }

    #[test]
    fn no_frame_is_larger_than_the_screen() {
        let mut view = view(50);
        for (columns, rows) in [(80, 24), (20, 5), (1, 1), (300, 100), (3, 2), (0, 0)] {
            let lines = view.frame(columns, rows);
            assert!(lines.len() <= rows.max(1), "{columns} {rows}: {}", lines.len());
            assert!(lines.iter().all(|line| line.text.chars().count() <= columns));
            view.press(Key::PageDown, View::page(rows));
        }
    }

    #[test]
    fn the_chosen_execution_is_always_on_the_screen() {
        let mut view = view(50);
        for (key, expected) in [
            (Key::Last, 50),
            (Key::Up, 49),
            (Key::PageUp, 42),
            (Key::First, 1),
            (Key::Char('j'), 2),
            (Key::PageDown, 9),
        ] {
            view.press(key, View::page(10));
            let shown = view.frame(80, 10);
            let chosen: Vec<_> = shown.iter().filter(|line| line.chosen).collect();
            assert!(
                chosen.len() == 1 && chosen[0].text.starts_with(&format!("> {expected:>7} ")),
                "{key:?} {chosen:?}"
            );
        }
    }

    #[test]
    fn the_chosen_execution_stays_chosen_when_others_end_and_when_the_order_changes() {
        let mut view = view(5);
        view.press(Key::Down, 9);
        view.press(Key::Down, 9);
        assert_eq!(view.chosen, Some(3));
        view.show(Entries { list: vec![entry(3, 1), entry(5, 50)], total: 2 });
        assert_eq!((view.chosen, view.row), (Some(3), 0));
        view.press(Key::Char('s'), 9);
        view.press(Key::Char('s'), 9);
        assert_eq!((view.chosen, view.row), (Some(3), 1));
        assert!(text(&mut view, 80, 24).contains("(by CPU)"));
        view.show(Entries { list: vec![entry(5, 50)], total: 1 });
        assert_eq!(view.chosen, Some(5));
        view.show(Entries::default());
        assert_eq!((view.chosen, view.press(Key::Char('x'), 9)), (None, Wish::Nothing));
    }

    #[test]
    fn an_execution_is_ended_only_after_a_yes_to_the_question_about_it() {
        let mut view = view(3);
        view.press(Key::Down, 9);
        assert_eq!(view.press(Key::Char('x'), 9), Wish::Nothing);
        assert!(text(&mut view, 80, 24).ends_with("end execution 2, orders/save? y/n\n"));
        assert_eq!(view.press(Key::Char('n'), 9), Wish::Nothing);
        assert_eq!(view.press(Key::Char('y'), 9), Wish::Nothing, "nothing was asked");
        view.press(Key::Char('x'), 9);
        view.show(Entries { list: vec![entry(1, 1), entry(3, 1)], total: 2 });
        assert!(text(&mut view, 80, 24).ends_with("execution 2 has ended meanwhile\n"));
        assert_eq!(view.press(Key::Char('y'), 9), Wish::End(2), "never the one that took its place");
    }

    #[test]
    fn what_is_told_stays_until_the_next_key() {
        let mut view = view(1);
        view.tell("execution 1 is told to end".to_owned());
        view.show(Entries::default());
        assert!(text(&mut view, 80, 24).ends_with("execution 1 is told to end\n"));
        assert_eq!(view.press(Key::Char('q'), 9), Wish::Quit);
    }
}
