//! A program on a terminal of its own, and what a person would see there.
//!
//! It knows as much of a terminal as `top` may use: moving, clearing, reverse video, the other screen, the cursor, wrapping
//! off. Anything else panics, colours above all.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::pty::{Winsize, openpty};
use nix::sys::signal::{self, Signal};
use nix::sys::termios::{Termios, tcgetattr};
use nix::unistd::{Pid, ttyname};

/// A program and its terminal. It is killed when this goes.
pub struct Terminal {
    child: Child,
    keys: File,
    /// The program's end, kept open so that what was written last can be read.
    end: OwnedFd,
    screen: Arc<Mutex<Screen>>,
    before: Termios,
}

/// What the terminal shows.
#[derive(Clone, Debug, Default)]
pub struct Screen {
    /// The screen of before, and that of full-screen programs.
    lines: [Vec<Vec<char>>; 2],
    pub alternate: bool,
    pub hidden_cursor: bool,
    pub wraps_off: bool,
    row: usize,
    column: usize,
    unread: Vec<u8>,
}

impl Terminal {
    /// Starts `command` with a terminal of its own as all three streams.
    pub fn start(command: &Command, columns: u16, rows: u16) -> Self {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(&size, None).expect("a pseudo terminal");
        let before = tcgetattr(&pair.slave).unwrap();
        let stream = || pair.slave.try_clone().unwrap();
        let mut started = Command::new("setsid");
        started.arg("--ctty").arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => started.env(name, value),
                None => started.env_remove(name),
            };
        }
        started.stdin(stream()).stdout(stream()).stderr(stream());
        let child = started.spawn().expect("setsid, of util-linux");
        let screen = Arc::new(Mutex::new(Screen::default()));
        let (mut output, seen) = (File::from(pair.master.try_clone().unwrap()), screen.clone());
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut bytes) {
                seen.lock().unwrap_or_else(PoisonError::into_inner).write(&bytes[..length]);
            }
        });
        Self { child, keys: File::from(pair.master), end: pair.slave, screen, before }
    }

    pub fn screen(&self) -> MutexGuard<'_, Screen> {
        self.screen.lock().expect("the program wrote what no test expects; see above")
    }

    /// Waits until `shown` holds for the text of the screen, and returns it.
    pub fn wait_for(&self, what: &str, shown: impl Fn(&str) -> bool) -> String {
        let until = Instant::now() + crate::SOON;
        loop {
            let text = self.screen().text();
            if shown(&text) {
                return text;
            }
            assert!(Instant::now() < until, "{what} is not to be seen:\n{text}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn wait_for_text(&self, text: &str) -> String {
        self.wait_for(text, |shown| shown.contains(text))
    }

    pub fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    pub fn resize(&self, columns: u16, rows: u16) {
        let name = ttyname(&self.end).unwrap();
        let (columns, rows) = (columns.to_string(), rows.to_string());
        let status = Command::new("stty").arg("-F").arg(name).args(["columns", &columns, "rows", &rows]).status();
        assert!(status.expect("stty").success());
    }

    pub fn signal(&self, signal: Signal) {
        signal::kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    pub fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + crate::SOON;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "it does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether the terminal is as it was: its modes, its cursor, its screen.
    pub fn is_given_back(&self) -> bool {
        let screen = self.screen();
        let same = tcgetattr(&self.end).unwrap() == self.before;
        same && !screen.alternate && !screen.hidden_cursor && !screen.wraps_off
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Screen {
    /// The screen that is shown, without what is blank at the ends.
    pub fn text(&self) -> String {
        let lines = self.lines[usize::from(self.alternate)].iter();
        let lines: Vec<String> = lines.map(|line| line.iter().collect::<String>().trim_end().to_owned()).collect();
        lines.join("\n").trim_end().to_owned()
    }

    fn line(&mut self) -> &mut Vec<char> {
        let lines = &mut self.lines[usize::from(self.alternate)];
        if lines.len() <= self.row {
            lines.resize(self.row + 1, Vec::new());
        }
        &mut lines[self.row]
    }

    fn write(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
        let text = match std::str::from_utf8(&self.unread) {
            Ok(text) => text.to_owned(),
            // the rest of a character is on its way
            Err(e) => String::from_utf8_lossy(&self.unread[..e.valid_up_to()]).into_owned(),
        };
        let mut rest = text.as_str();
        while let Some(ch) = rest.chars().next() {
            let after = match ch {
                '\u{1b}' => match self.escape(rest) {
                    Some(after) => after,
                    None => break,
                },
                '\n' => {
                    self.row += 1;
                    &rest[1..]
                }
                '\r' => {
                    self.column = 0;
                    &rest[1..]
                }
                ch => {
                    assert!(!ch.is_control(), "{ch:?} drives the terminal");
                    let column = self.column;
                    let line = self.line();
                    line.resize(line.len().max(column + 1), ' ');
                    line[column] = ch;
                    self.column += 1;
                    &rest[ch.len_utf8()..]
                }
            };
            rest = after;
        }
        let done = text.len() - rest.len();
        self.unread.drain(..done);
    }

    /// Does what the sequence at the start of `text` says; `None` if it is not whole yet.
    fn escape<'a>(&mut self, text: &'a str) -> Option<&'a str> {
        let sequence = text.strip_prefix("\u{1b}")?;
        sequence.chars().next()?;
        let sequence = sequence.strip_prefix('[').unwrap_or_else(|| panic!("unexpected {text:?}"));
        let length = sequence.find(|ch: char| ch.is_ascii_alphabetic())?;
        let (parameters, word) = (&sequence[..length], &sequence[length..=length]);
        let numbers: Vec<usize> = parameters.split(';').map(|n| n.parse().unwrap_or(0)).collect();
        match (word, parameters) {
            ("H", _) => {
                self.row = numbers[0].saturating_sub(1);
                self.column = numbers.get(1).copied().unwrap_or(1).saturating_sub(1);
            }
            ("K", "" | "0") => {
                let column = self.column;
                self.line().truncate(column);
            }
            ("J", "" | "0") => {
                let (row, column) = (self.row, self.column);
                self.line().truncate(column);
                self.lines[usize::from(self.alternate)].truncate(row + 1);
            }
            ("m", "" | "0" | "7") => {}
            ("h" | "l", "?1049") => self.alternate = word == "h",
            ("h" | "l", "?25") => self.hidden_cursor = word == "l",
            ("h" | "l", "?7") => self.wraps_off = word == "l",
            _ => panic!("the sequence {parameters:?} {word:?} is not one that every terminal has"),
        }
        Some(&sequence[length + 1..])
    }
}
