//! A frame that has come and is not done with: it waits, is worked on, or is remembered while it runs.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use nexus_protocol::{ClientMessage, OwnedFrame, decode_client};

use crate::budget::Charge;

/// See the module. Its bytes count for as long as anybody has it.
#[derive(Debug)]
pub struct Incoming {
    frame: OwnedFrame,
    labels: OnceLock<Labels>,
    _charge: Charge,
}

/// What people know an execution by.
#[derive(Debug, Default)]
pub struct Labels {
    pub panel_id: Option<Box<str>>,
    pub handler_name: Option<Box<str>>,
}

impl Incoming {
    pub fn new(frame: OwnedFrame, charge: Charge) -> Arc<Self> {
        Arc::new(Self { frame, labels: OnceLock::new(), _charge: charge })
    }

    /// One that counts nowhere.
    #[cfg(test)]
    pub fn uncounted(frame: OwnedFrame) -> Arc<Self> {
        Self::new(frame, crate::budget::Budget::new("none", 0).nothing())
    }

    /// Heap bytes of the frame.
    pub fn capacity_bytes(&self) -> usize {
        self.frame.capacity_bytes()
    }

    /// Read from the frame when somebody asks for the first time, which may take as long as decoding it takes. One that makes
    /// no sense has none.
    pub fn labels(&self) -> &Labels {
        self.labels.get_or_init(|| match decode_client(&self.frame).map(|envelope| envelope.message) {
            Ok(ClientMessage::Execute(execute)) => Labels {
                panel_id: execute.panel_id.map(Into::into),
                handler_name: execute.handler_name.map(Into::into),
            },
            Ok(ClientMessage::ExecuteMany(many)) => many.item(0).map_or_else(Labels::default, |first| Labels {
                panel_id: first.panel_id.map(Into::into),
                handler_name: first.handler_name.map(Into::into),
            }),
            _ => Labels::default(),
        })
    }
}

impl Deref for Incoming {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.frame
    }
}
