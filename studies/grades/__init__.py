"""Daily grades whose errors persist: which likelihood has intervals that can be believed?"""
