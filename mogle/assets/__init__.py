"""Weights and data sets from elsewhere: where they come from, and how they get to where the rest looks for them.

    mogle.assets.ledger    reading `mogle/assets.toml`, and the lock file with what earlier downloads saw
    mogle.assets.archive   zip -> folder, refusing what a zip of pictures has no use for
    mogle.assets.fetch     all of it together: `get`, and bytes from the Hub or an address, resumed

Nothing here touches the network unless `get` is called.
"""
