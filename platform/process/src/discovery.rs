//! Where the copies of a service are, when the map does not list them: names that DNS answers.
//!
//! `dns://host:port` asks for addresses (a headless service of Kubernetes), `srv://_grpc._tcp.name` for hosts with ports
//! (the same with named ports, or the DNS interface of Consul). A name is asked again when its answer is no longer good,
//! within bounds: an answer that is good for a day is still asked about within half a minute, since a copy that has gone
//! cannot say so. While nobody answers, the copies known last stay; so they do when the answer is that there are none,
//! for a name that is gone for a moment is more often a mistake than the end of a service.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use client::Error;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ProtocolConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};

use crate::map::Place;

/// Between two questions about a name, whatever its answer says.
const SOONEST: Duration = Duration::from_secs(1);
const LATEST: Duration = Duration::from_secs(30);

/// Finds copies by names. A cheap handle.
#[derive(Clone)]
pub(crate) struct Names {
    resolver: TokioResolver,
}

impl Names {
    /// Asks this server, or those of the system.
    pub(crate) fn new(server: Option<SocketAddr>) -> Result<Self, NetError> {
        let builder = match server {
            Some(server) => {
                let connections = [ProtocolConfig::Udp, ProtocolConfig::Tcp].map(|protocol| {
                    let mut connection = ConnectionConfig::new(protocol);
                    connection.port = server.port();
                    connection
                });
                let server = NameServerConfig::new(server.ip(), true, connections.to_vec());
                let config = ResolverConfig::from_parts(None, vec![], vec![server]);
                TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            }
            None => TokioResolver::builder_tokio()?,
        };
        Ok(Names { resolver: builder.build()? })
    }

    /// Tells where the copies of a service are, whenever that has changed.
    pub(crate) async fn follow(self, name: &'static str, place: Place, tell: impl Fn(&[String]) -> Result<(), Error>) {
        let mut known = BTreeSet::new();
        loop {
            let pause = match self.find(&place).await {
                Ok((found, until)) => {
                    if !found.is_empty() && found != known {
                        match tell(&uris(&found)) {
                            Ok(()) => known = found,
                            Err(error) => tracing::warn!(service = name, %error, "its copies cannot be reached"),
                        }
                    }
                    until.saturating_duration_since(now()).clamp(SOONEST, LATEST)
                }
                Err(error) => {
                    tracing::warn!(service = name, %error, "its copies cannot be looked up; those known stay");
                    SOONEST
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Where the copies of a service are now.
    pub(crate) async fn once(&self, place: &Place) -> Result<Vec<String>, NetError> {
        Ok(uris(&self.find(place).await?.0))
    }

    /// The copies, and until when the answer is good.
    async fn find(&self, place: &Place) -> Result<(BTreeSet<SocketAddr>, Instant), NetError> {
        match place {
            Place::Listed(addresses) => Ok((addresses.iter().copied().collect(), now() + LATEST)),
            // Told by etcd to who follows it, and by no name server.
            Place::Etcd(_) => Ok((BTreeSet::new(), now() + LATEST)),
            Place::Dns { host, port } => {
                let (ips, until) = self.addresses(host).await?;
                Ok((ips.into_iter().map(|ip| SocketAddr::new(ip, *port)).collect(), until))
            }
            Place::Srv(name) => {
                let answer = self.resolver.lookup(name.as_str(), RecordType::SRV).await?;
                let (mut found, mut until) = (BTreeSet::new(), answer.valid_until());
                let best = answer.answers().iter().filter_map(|record| srv(&record.data)).map(|srv| srv.priority).min();
                for srv in answer.answers().iter().filter_map(|record| srv(&record.data)) {
                    // Others are there for when these are not (RFC 2782); weights are for whoever cannot see the load.
                    if Some(srv.priority) != best {
                        continue;
                    }
                    let (ips, good) = self.addresses(&srv.target.to_ascii()).await?;
                    found.extend(ips.into_iter().map(|ip| SocketAddr::new(ip, srv.port)));
                    until = until.min(good);
                }
                Ok((found, until))
            }
        }
    }

    async fn addresses(&self, host: &str) -> Result<(Vec<IpAddr>, Instant), NetError> {
        let answer = self.resolver.lookup_ip(host).await?;
        Ok((answer.iter().collect(), answer.valid_until()))
    }
}

fn uris(found: &BTreeSet<SocketAddr>) -> Vec<String> {
    found.iter().map(|address| format!("http://{address}")).collect()
}

fn srv(data: &RData) -> Option<&hickory_resolver::proto::rr::rdata::SRV> {
    match data {
        RData::SRV(srv) => Some(srv),
        _ => None,
    }
}

/// The resolver's answers are good until an instant of the standard library.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use std::str::FromStr as _;
    use std::sync::{Arc, Mutex};

    use hickory_resolver::proto::op::{Message, ResponseCode};
    use hickory_resolver::proto::rr::rdata::{A, SRV};
    use hickory_resolver::proto::rr::{Name, Record};
    use tokio::net::UdpSocket;
    use tokio::sync::watch;

    use super::*;

    /// What the server of a test knows: a name, how long it is good, and its data.
    type Zone = Arc<Mutex<Option<Vec<(&'static str, u32, RData)>>>>;

    /// A server that answers from the zone, or that it failed where there is none.
    async fn server(zone: Zone) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut datagram = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut datagram).await {
                let asked = Message::from_vec(&datagram[..length]).unwrap();
                let query = asked.queries[0].clone();
                let mut reply = Message::response(asked.id, asked.op_code);
                reply.add_query(query.clone());
                match &*zone.lock().unwrap() {
                    None => reply.metadata.response_code = ResponseCode::ServFail,
                    Some(zone) => {
                        reply.add_answers(zone.iter().filter_map(|(name, ttl, data)| {
                            let name = Name::from_str(name).unwrap();
                            let fits = name == *query.name() && data.record_type() == query.query_type();
                            fits.then(|| Record::from_rdata(name, *ttl, data.clone()))
                        }));
                    }
                };
                socket.send_to(&reply.to_vec().unwrap(), from).await.unwrap();
            }
        });
        address
    }

    fn a(last: u8) -> RData {
        RData::A(A::new(127, 0, 0, last))
    }

    fn srv_to(priority: u16, port: u16, host: &str) -> RData {
        RData::SRV(SRV::new(priority, 1, port, Name::from_str(host).unwrap()))
    }

    fn addresses(texts: &[&str]) -> BTreeSet<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[tokio::test]
    async fn a_host_and_a_service_record_name_copies() {
        let zone = vec![
            ("cart.shop.", 5, a(1)),
            ("cart.shop.", 5, a(2)),
            ("_grpc._tcp.cart.shop.", 60, srv_to(1, 7001, "one.shop.")),
            ("_grpc._tcp.cart.shop.", 60, srv_to(1, 7002, "two.shop.")),
            ("_grpc._tcp.cart.shop.", 60, srv_to(2, 7003, "spare.shop.")),
            ("one.shop.", 7, a(3)),
            ("two.shop.", 60, a(4)),
            ("spare.shop.", 60, a(5)),
        ];
        let names = Names::new(Some(server(Arc::new(Mutex::new(Some(zone)))).await)).unwrap();
        let dns = Place::Dns { host: "cart.shop.".to_owned(), port: 7000 };
        let (found, until) = names.find(&dns).await.unwrap();
        assert_eq!(found, addresses(&["127.0.0.1:7000", "127.0.0.2:7000"]));
        assert!(until <= now() + Duration::from_secs(5));
        let (found, until) = names.find(&Place::Srv("_grpc._tcp.cart.shop.".to_owned())).await.unwrap();
        assert_eq!(found, addresses(&["127.0.0.3:7001", "127.0.0.4:7002"]), "the spare one is not needed");
        assert!(until <= now() + Duration::from_secs(7), "the answer that ends first");
    }

    #[tokio::test]
    async fn copies_come_and_go_and_a_server_that_fails_takes_none_away() {
        let zone: Zone = Arc::new(Mutex::new(None));
        let names = Names::new(Some(server(Arc::clone(&zone)).await)).unwrap();
        let (told, mut tell) = watch::channel(vec![]);
        let place = Place::Dns { host: "cart.shop.".to_owned(), port: 7000 };
        tokio::spawn(names.follow("cart", place, move |uris: &[String]| {
            told.send_replace(uris.to_vec());
            Ok(())
        }));
        let mut becomes = async |wanted: &[&str]| {
            let heard = tell.wait_for(|uris| uris.iter().eq(wanted));
            tokio::time::timeout(Duration::from_secs(30), heard).await.unwrap().unwrap();
        };
        let set = |data: Option<&[RData]>| {
            let records = |data: &[RData]| data.iter().map(|data| ("cart.shop.", 0, data.clone())).collect();
            *zone.lock().unwrap() = data.map(records);
        };
        set(Some(&[a(1)]));
        becomes(&["http://127.0.0.1:7000"]).await;
        set(Some(&[a(1), a(2)]));
        becomes(&["http://127.0.0.1:7000", "http://127.0.0.2:7000"]).await;
        set(None);
        set(Some(&[]));
        set(Some(&[a(2)]));
        becomes(&["http://127.0.0.2:7000"]).await;
    }
}
