"""The portal: Hansa in a browser. Pages call the services that the API's routes call, and decide nothing."""
