//! A scenario is a function of the make of the driver.

/// One test per driver for each scenario.
macro_rules! on_both_drivers {
    ($($name:ident),* $(,)?) => { $(
        mod $name {
            #[test]
            fn c_driver() {
                super::$name(crate::process::Make::C);
            }

            #[test]
            fn our_driver() {
                super::$name(crate::process::Make::Fulmar);
            }
        }
    )* };
}
