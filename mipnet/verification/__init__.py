"""Questions about all inputs of a set: is a property violated anywhere in it, and where?"""
