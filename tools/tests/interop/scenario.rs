//! Which makes a scenario runs with, and how that becomes tests.

use crate::process::{Client, Directory, Driver, Make};

/// The makes of one run of a scenario, and its driver directory.
pub struct World {
    /// Make of the driver.
    pub driver: Make,
    /// Make of the first client, the one a scenario is about.
    pub client: Make,
    /// Make of the second client.
    pub other: Make,
    /// The driver directory.
    pub dir: Directory,
}

impl World {
    /// A world with nothing running.
    pub fn new(driver: Make, client: Make, other: Make) -> World {
        World {
            driver,
            client,
            other,
            dir: Directory::new(),
        }
    }

    /// Starts the driver with settings on top of the common ones.
    pub fn driver(&self, settings: &[(&str, &str)]) -> Driver {
        Driver::start(self.driver, &self.dir, settings)
    }

    /// Connects a first client.
    pub fn client(&self) -> Client {
        Client::connect(self.client, &self.dir)
    }

    /// Connects a second client.
    pub fn other(&self) -> Client {
        Client::connect(self.other, &self.dir)
    }
}

/// One test per combination for scenarios about one kind of client: the clients are of one make.
macro_rules! scenarios {
    ($($name:ident),* $(,)?) => { $(
        mod $name {
            use crate::process::Make::{C, Fulmar};
            use crate::scenario::World;

            #[test]
            fn c_on_c() {
                super::$name(&World::new(C, C, C));
            }

            #[test]
            fn c_on_fulmar() {
                super::$name(&World::new(Fulmar, C, C));
            }

            #[test]
            fn fulmar_on_c() {
                super::$name(&World::new(C, Fulmar, Fulmar));
            }

            #[test]
            fn fulmar_on_fulmar() {
                super::$name(&World::new(Fulmar, Fulmar, Fulmar));
            }
        }
    )* };
}

/// As [`scenarios`], with clients of both makes beside each other as well.
macro_rules! mixed_scenarios {
    ($($name:ident),* $(,)?) => { $(
        mod $name {
            use crate::process::Make::{C, Fulmar};
            use crate::scenario::World;

            #[test]
            fn c_and_c_on_c() {
                super::$name(&World::new(C, C, C));
            }

            #[test]
            fn c_and_c_on_fulmar() {
                super::$name(&World::new(Fulmar, C, C));
            }

            #[test]
            fn c_and_fulmar_on_c() {
                super::$name(&World::new(C, C, Fulmar));
            }

            #[test]
            fn c_and_fulmar_on_fulmar() {
                super::$name(&World::new(Fulmar, C, Fulmar));
            }

            #[test]
            fn fulmar_and_c_on_c() {
                super::$name(&World::new(C, Fulmar, C));
            }

            #[test]
            fn fulmar_and_c_on_fulmar() {
                super::$name(&World::new(Fulmar, Fulmar, C));
            }
        }
    )* };
}

pub(crate) use {mixed_scenarios, scenarios};
