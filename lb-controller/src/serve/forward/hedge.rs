//! A second backend is asked when the first takes long, and the first good answer of the two goes to the client.

use std::pin::pin;
use std::time::Duration;

use http::request;
use tokio::time::Instant;

use super::{ClientSide, Opened, Tried, end_of};
use crate::serve::access_log::Record;
use crate::serve::body::RequestBody;
use crate::serve::respond::Refusal;
use crate::serve::tries::Tries;
use crate::serve::upstream;
use crate::traces::TryEnd;

/// Which of the two counts, and what came of the other.
enum Won {
    First(Tried, TryEnd),
    Second(Tried, TryEnd),
}

/// One try, and after this long a second one beside it, if there is a backend for it and a budget. The request is its
/// head, its body, and a copy of that.
pub(super) async fn ask(
    tries: &mut Tries<'_>,
    after: Duration,
    opened: Opened,
    (head, body, spare): (&request::Parts, RequestBody, &RequestBody),
    record: &mut Record,
) -> Tried {
    let target = tries.target();
    let timeouts = target.timeouts;
    let asked = opened.backend().clone();
    let mut first = pin!(super::ask(opened, (head, body), ClientSide::default(), timeouts));
    if let Ok(tried) = tokio::time::timeout(after, first.as_mut()).await {
        return tried;
    }
    let (Some(in_flight), Some(body)) = (tries.hedge(&asked), spare.again()) else { return first.await };
    let (beside, asked_at) = (in_flight.backend().address, Instant::now());
    let head_beside = record.begin_second_try(beside, head);
    let head = head_beside.as_ref().unwrap_or(head);
    let mut second = pin!(async move {
        match upstream::connect(&target.pool.dial, in_flight.backend(), timeouts.connect, &target.preface).await {
            Ok(connection) => {
                let opened = Opened { connection, reused: false, in_flight, at: Instant::now() };
                Ok(super::ask(opened, (head, body), ClientSide::default(), timeouts).await)
            }
            Err(error) => {
                in_flight.backend().failed(error.to_string());
                Err(TryEnd::Failed("connect"))
            }
        }
    });
    let is_good = |tried: &Tried| match &tried.answer {
        Ok(Ok(response)) => !target.retries.on.status(response.status()),
        _ => false,
    };
    // Whoever is not waited for any more is dropped, and its connection with it.
    let won = tokio::select! {
        tried = first.as_mut() => match is_good(&tried) {
            true => Won::First(tried, TryEnd::GIVEN_UP),
            false => match second.await {
                Ok(second) if is_good(&second) => Won::Second(second, charge(tried)),
                second => Won::First(tried, second.map_or_else(|end| end, charge)),
            },
        },
        tried = second.as_mut() => match tried {
            Ok(second) if is_good(&second) => Won::Second(second, TryEnd::GIVEN_UP),
            second => {
                let end = second.map_or_else(|end| end, charge);
                Won::First(first.await, end)
            }
        },
    };
    match won {
        Won::First(tried, end) => {
            record.lost_try(beside, end);
            tried
        }
        Won::Second(tried, end) => {
            record.lost_try(asked.address, end);
            record.second_won(beside, asked_at.into_std());
            tried
        }
    }
}

/// Charges the backend with a failure of which nobody else hears.
fn charge(tried: Tried) -> TryEnd {
    let end = end_of(&tried.answer);
    let Tried { mut opened, answer } = tried;
    match answer {
        Ok(Ok(response)) => opened.in_flight.answered(response.status()),
        Ok(Err(error)) => opened.backend().failed(format!("no response: {error}")),
        Err(Refusal::BackendTooSlow) => opened.backend().failed("no response in time".to_owned()),
        Err(_) => {}
    }
    end
}
