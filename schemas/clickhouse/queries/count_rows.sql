SELECT
    (SELECT count() FROM interactions WHERE app = {app:String} AND lane = 'live')
    + (SELECT count() FROM feedback WHERE app = {app:String} AND lane = 'live')
