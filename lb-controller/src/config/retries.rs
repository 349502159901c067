//! When a request is sent again, and how long it may take.

use std::time::Duration;

use http::StatusCode;

/// How long a backend may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For the TCP handshake. Longer than one lost SYN (1 s) and its repetition.
    pub connect: Duration,
    /// From the last byte of the request until the response's header, for each try.
    pub response: Duration,
    /// Between two pieces of a request body that the client is sending.
    pub request_body: Duration,
    /// Between two pieces of a response body that the backend is sending. Long: a stream may have little to say.
    pub response_body: Duration,
    /// Until the response's header, with all tries and all waiting; `None`: as long as that takes.
    pub overall: Option<Duration>,
    /// After this long without a response a second backend is asked as well; `None`: never.
    pub hedge_after: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            connect: Duration::from_secs(3),
            response: Duration::from_secs(60),
            request_body: Duration::from_secs(30),
            response_body: Duration::from_secs(300),
            overall: None,
            hedge_after: None,
        }
    }
}

/// When a request is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryConfig {
    /// Tries of one request in all, the first included.
    pub attempts: u8,
    pub on: RetryOn,
}

/// After which failures. All but the first two are for requests that may be sent twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryOn {
    /// No connection: nothing was sent.
    pub connect: bool,
    /// The backend says that it has not looked at the request (HTTP/2: REFUSED_STREAM, or beyond its GOAWAY).
    pub refused_stream: bool,
    /// The connection ended before a response began.
    pub reset_before_response: bool,
    pub bad_gateway: bool,
    pub service_unavailable: bool,
    /// The backend says so, or takes longer than it may.
    pub gateway_timeout: bool,
}

impl RetryOn {
    pub fn status(self, status: StatusCode) -> bool {
        match status {
            StatusCode::BAD_GATEWAY => self.bad_gateway,
            StatusCode::SERVICE_UNAVAILABLE => self.service_unavailable,
            StatusCode::GATEWAY_TIMEOUT => self.gateway_timeout,
            _ => false,
        }
    }
}

impl Default for RetryConfig {
    fn default() -> RetryConfig {
        RetryConfig { attempts: 3, on: RetryOn { connect: true, refused_stream: true, ..RetryOn::default() } }
    }
}

/// How many requests of a pool may be sent again. When all of its backends fail, retries would multiply the load that
/// they fail under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    /// Of a hundred requests.
    pub percent: u8,
    /// So many in any case.
    pub minimum_per_second: u32,
}

impl Default for RetryBudget {
    fn default() -> RetryBudget {
        RetryBudget { percent: 20, minimum_per_second: 10 }
    }
}
