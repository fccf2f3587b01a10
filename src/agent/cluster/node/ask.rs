//! One request to the API server within a bound of time, and its failure in words.

use std::{future::Future, time::Duration};

use crate::kube::told;

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    /// The server has answered, and not as asked.
    #[error("{message}")]
    Refused {
        /// The HTTP status.
        code: u16,
        /// In words.
        message: String,
    },
    /// Nothing was heard.
    #[error("{0}")]
    Unheard(String),
}

impl AskError {
    /// The HTTP status; 0 where there was no answer.
    pub(super) fn code(&self) -> u16 {
        match self {
            Self::Refused { code, .. } => *code,
            Self::Unheard(_) => 0,
        }
    }
}

/// Waits for the answer, but not for ever: a connection of which the other end is gone is found out by its pings, and
/// until then the next try must not wait.
pub(super) async fn ask<T>(
    patience: Duration,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, AskError> {
    match tokio::time::timeout(patience, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(match &error {
            kube::Error::Api(status) => AskError::Refused { code: status.code, message: told(&error) },
            other => AskError::Unheard(format!("the API server cannot be asked: {}", told(other))),
        }),
        Err(_elapsed) => {
            Err(AskError::Unheard(format!("no answer of the API server within {} s", patience.as_secs_f32())))
        }
    }
}
