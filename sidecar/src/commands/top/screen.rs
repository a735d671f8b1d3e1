//! The screen of `top`: the terminal taken and given back, keys in, frames out.
//!
//! The sidecar is asked on a thread of its own, so that a slow one leaves the keys alone.
//!
//! Invariant: the terminal is given back on every way out: the end, an error, a panic, a signal, a stop (Ctrl-Z).

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::thread;
use std::time::Duration;

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use crossterm::queue;
use crossterm::style::{Attribute, SetAttribute};
use crossterm::terminal::{
    Clear, ClearType, DisableLineWrap, EnableLineWrap, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode,
    enable_raw_mode, size,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP};
use signal_hook::low_level::emulate_default_handler;

use super::super::client::{Client, ClientError};
use super::entry::Entries;
use super::view::{Key, Line, View, Wish};
use super::{end, executions};
use crate::error::StartError;
use crate::exit::ExitCode;

/// How long a signal, or news of the sidecar, may wait for the next look.
const TICK: Duration = Duration::from_millis(50);
/// Of a terminal that does not say how large it is.
const USUAL_SIZE: (u16, u16) = (80, 24);

/// Whether the terminal is ours. Given back a second time, it would put its cursor over what was written in between.
static TAKEN: AtomicBool = AtomicBool::new(false);

enum News {
    Executions(Entries),
    Ended { execution: u64, was_there: bool },
    Lost(ClientError),
}

/// The terminal, while it is ours.
struct Taken;

pub(super) fn run(client: Client, interval: Duration, out: &mut dyn Write) -> Result<ExitCode, StartError> {
    let signal = Arc::new(AtomicUsize::new(0));
    for number in [SIGTERM, SIGINT, SIGHUP, SIGQUIT] {
        let value = usize::try_from(number).unwrap_or_default();
        signal_hook::flag::register_usize(number, signal.clone(), value)?;
    }
    give_back_on_panic();
    let (news, wishes) = ask_beside(client, interval)?;
    let taken = Taken::take(out)?;
    let ended = watch(&signal, &news, &wishes, out);
    drop(taken);
    match i32::try_from(signal.load(Ordering::Relaxed)) {
        // as if the signal had done it, for whoever waits for this process
        Ok(number) if number != 0 => emulate_default_handler(number)?,
        _ => {}
    }
    ended.map(|()| ExitCode::Ok)
}

fn watch(
    signal: &AtomicUsize,
    news: &Receiver<News>,
    wishes: &Sender<u64>,
    out: &mut dyn Write,
) -> Result<(), StartError> {
    let mut view = View::default();
    // what is on the screen already; nothing is written while nothing changes
    let mut shown = Vec::new();
    while signal.load(Ordering::Relaxed) == 0 {
        loop {
            let news = match news.try_recv() {
                Ok(news) => news,
                Err(TryRecvError::Empty) => break,
                // it has panicked
                Err(TryRecvError::Disconnected) => return Err(ClientError::Closed.into()),
            };
            match news {
                News::Executions(entries) => view.show(entries),
                News::Ended { execution, was_there: true } => {
                    view.tell(format!("execution {execution} is told to end"));
                }
                News::Ended { execution, .. } => view.tell(format!("execution {execution} had ended already")),
                News::Lost(error) => return Err(error.into()),
            }
        }
        let (columns, rows) = size().ok().filter(|(columns, rows)| *columns > 0 && *rows > 0).unwrap_or(USUAL_SIZE);
        let frame = view.frame(columns.into(), rows.into());
        if frame != shown {
            draw(&frame, out)?;
            shown = frame;
        }
        if !event::poll(TICK)? {
            continue;
        }
        let event = match event::read()? {
            Event::Key(event) => event,
            Event::Resize(..) => {
                shown.clear();
                continue;
            }
            _ => continue,
        };
        match key(event) {
            None => {}
            Some(Press::Redraw) => shown.clear(),
            Some(Press::Stop) => {
                give_back(out)?;
                emulate_default_handler(SIGTSTP)?;
                take(out)?;
                shown.clear();
            }
            Some(Press::Key(key)) => match view.press(key, View::page(rows.into())) {
                Wish::Nothing => {}
                Wish::Quit => return Ok(()),
                // the thread is gone only after it has told why
                Wish::End(execution) => wishes.send(execution).unwrap_or_default(),
            },
        }
    }
    Ok(())
}

enum Press {
    Key(Key),
    Stop,
    Redraw,
}

/// Raw mode turns the terminal's own signals into keys.
fn key(event: KeyEvent) -> Option<Press> {
    if event.kind == KeyEventKind::Release {
        return None;
    }
    if event.modifiers.contains(KeyModifiers::CONTROL) {
        return match event.code {
            KeyCode::Char('c' | 'd' | '\\' | '4') => Some(Press::Key(Key::Interrupt)),
            KeyCode::Char('z') => Some(Press::Stop),
            KeyCode::Char('l') => Some(Press::Redraw),
            _ => None,
        };
    }
    Some(Press::Key(match event.code {
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::First,
        KeyCode::End => Key::Last,
        KeyCode::Delete => Key::Char('x'),
        KeyCode::Esc => Key::Escape,
        KeyCode::Char(ch) => Key::Char(ch),
        _ => return None,
    }))
}

/// Asks now, then after each interval and after each execution that was ended.
fn ask_beside(mut client: Client, interval: Duration) -> io::Result<(Receiver<News>, Sender<u64>)> {
    let (tell, news) = mpsc::channel();
    let (wishes, wished) = mpsc::channel();
    let work = move || {
        loop {
            let page = executions(&mut client).map_or_else(News::Lost, News::Executions);
            let lost = matches!(page, News::Lost(_));
            if tell.send(page).is_err() || lost {
                return;
            }
            let told = match wished.recv_timeout(interval) {
                Ok(execution) => end(&mut client, execution)
                    .map_or_else(News::Lost, |was_there| News::Ended { execution, was_there }),
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if tell.send(told).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("asker".to_owned()).spawn(work)?;
    Ok((news, wishes))
}

/// One write for a whole frame: nothing flickers.
fn draw(lines: &[Line], out: &mut dyn Write) -> io::Result<()> {
    let mut bytes = Vec::new();
    for (row, line) in (0_u16..).zip(lines) {
        queue!(bytes, MoveTo(0, row))?;
        if line.chosen {
            queue!(bytes, SetAttribute(Attribute::Reverse))?;
        }
        bytes.extend_from_slice(line.text.as_bytes());
        queue!(bytes, SetAttribute(Attribute::Reset), Clear(ClearType::UntilNewLine))?;
    }
    queue!(bytes, Clear(ClearType::FromCursorDown))?;
    write_all(&bytes, out)
}

fn write_all(bytes: &[u8], out: &mut dyn Write) -> io::Result<()> {
    out.write_all(bytes)?;
    out.flush()
}

impl Taken {
    fn take(out: &mut dyn Write) -> io::Result<Self> {
        // made first, so that a take that fails halfway is undone
        let taken = Self;
        take(out)?;
        Ok(taken)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        // nothing is left to be done where it fails
        let _ = give_back(&mut io::stdout());
    }
}

fn take(out: &mut dyn Write) -> io::Result<()> {
    TAKEN.store(true, Ordering::Relaxed);
    enable_raw_mode()?;
    let mut bytes = Vec::new();
    queue!(bytes, EnterAlternateScreen, DisableLineWrap, Hide)?;
    write_all(&bytes, out)
}

fn give_back(out: &mut dyn Write) -> io::Result<()> {
    if !TAKEN.swap(false, Ordering::Relaxed) {
        return Ok(());
    }
    let mut bytes = Vec::new();
    queue!(bytes, SetAttribute(Attribute::Reset), Show, EnableLineWrap, LeaveAlternateScreen)?;
    let shown = write_all(&bytes, out);
    disable_raw_mode()?;
    shown
}

/// The message of a panic is for the screen of before.
fn give_back_on_panic() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let _ = give_back(&mut io::stdout());
        before(panic);
    }));
}
